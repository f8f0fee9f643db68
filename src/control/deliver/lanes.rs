//! What waits in which lane. Pure: bodies stay in the store, here are only names and times.
//!
//! Order within a lane is the order in which deliveries became owed; the head alone is tried, so a failing head holds up its
//! own lane and no other.

use crate::engine::model::Timestamp;
use crate::engine::sink::Delivery;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// All lanes.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Arc<str>, Lane>,
    /// Heads that wait, by time: (next attempt, lane).
    heads: BTreeSet<(Timestamp, Arc<str>)>,
    disabled: BTreeMap<String, Timestamp>,
    held: usize,
}

struct Lane {
    endpoint: Arc<str>,
    /// Id and earliest attempt, oldest first.
    queue: VecDeque<(String, Timestamp)>,
    busy: bool,
}

impl Lanes {
    /// Endpoints that get nothing for now, and since when.
    pub fn new(disabled: BTreeMap<String, Timestamp>) -> Self {
        Lanes { disabled, ..Lanes::default() }
    }

    /// Deliveries held.
    pub fn len(&self) -> usize {
        self.held
    }

    /// A delivery has become owed. Those of one lane come in order.
    pub fn push(&mut self, delivery: &Delivery) {
        let name: Arc<str> = delivery.lane.as_str().into();
        let lane = self.lanes.entry(name.clone()).or_insert_with(|| Lane {
            endpoint: delivery.endpoint.as_str().into(),
            queue: VecDeque::new(),
            busy: false,
        });
        lane.queue.push_back((delivery.id.clone(), delivery.next_at));
        self.held += 1;
        self.wait(&name);
    }

    /// A head that is due; its lane is busy until [`done`](Lanes::done).
    pub fn take(&mut self, now: Timestamp) -> Option<(Arc<str>, String)> {
        let (at, name) = self.heads.first()?.clone();
        if at > now {
            return None;
        }
        self.heads.pop_first();
        let lane = self.lanes.get_mut(&name)?;
        lane.busy = true;
        let id = lane.queue.front()?.0.clone();
        Some((name, id))
    }

    /// The head of a busy lane was delivered or given up (`None`), or is to be tried again.
    pub fn done(&mut self, name: &Arc<str>, again: Option<Timestamp>) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        lane.busy = false;
        match (again, lane.queue.front_mut()) {
            (Some(at), Some(head)) => head.1 = at,
            _ => {
                lane.queue.pop_front();
                self.held = self.held.saturating_sub(1);
            }
        }
        if lane.queue.is_empty() {
            self.lanes.remove(name);
        } else {
            self.wait(name);
        }
    }

    /// When the next head is due.
    pub fn due(&self) -> Option<Timestamp> {
        self.heads.first().map(|(at, _)| *at)
    }

    /// An endpoint gets nothing from now on.
    pub fn disable(&mut self, endpoint: &str, at: Timestamp) {
        self.disabled.insert(endpoint.to_owned(), at);
        let lanes = &self.lanes;
        self.heads.retain(|(_, name)| lanes.get(name).is_none_or(|lane| &*lane.endpoint != endpoint));
    }

    /// An endpoint gets its deliveries again.
    pub fn enable(&mut self, endpoint: &str) {
        self.disabled.remove(endpoint);
        let names: Vec<Arc<str>> =
            self.lanes.iter().filter(|(_, lane)| &*lane.endpoint == endpoint).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.wait(name));
    }

    /// Endpoints that get nothing, and since when.
    pub fn disabled(&self) -> &BTreeMap<String, Timestamp> {
        &self.disabled
    }

    fn wait(&mut self, name: &Arc<str>) {
        let Some(lane) = self.lanes.get(name) else { return };
        if let (false, false, Some((_, at))) =
            (lane.busy, self.disabled.contains_key(&*lane.endpoint), lane.queue.front())
        {
            self.heads.insert((*at, name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(lane: &str, id: &str, at: i64) -> Delivery {
        let endpoint = lane.split('|').next().unwrap_or_default().to_owned();
        let (id, lane, body) = (id.to_owned(), lane.to_owned(), "{}".to_owned());
        let next_at = Timestamp(at);
        Delivery { id, endpoint, lane, body, created_at: next_at, tries: 0, next_at, last_error: None }
    }

    #[test]
    fn one_in_flight_per_lane_and_in_order() {
        let mut lanes = Lanes::default();
        for (lane, id) in [("a|1", "x"), ("a|1", "y"), ("b|1", "z")] {
            lanes.push(&delivery(lane, id, 0));
        }
        let now = Timestamp(5);
        let (first, x) = lanes.take(now).expect("due");
        let (_, z) = lanes.take(now).expect("due");
        assert_eq!((x.as_str(), z.as_str()), ("x", "z"));
        assert_eq!(lanes.take(now), None, "y waits for x");
        lanes.done(&first, Some(Timestamp(9)));
        assert_eq!((lanes.take(now), lanes.due()), (None, Some(Timestamp(9))));
        assert_eq!(lanes.take(Timestamp(9)).expect("due").1, "x");
        lanes.done(&first, None);
        assert_eq!(lanes.take(now).expect("due").1, "y");
        lanes.done(&first, None);
        assert_eq!(lanes.len(), 1);
    }

    #[test]
    fn a_disabled_endpoint_waits() {
        let mut lanes = Lanes::default();
        lanes.push(&delivery("a|1", "x", 0));
        let (lane, _) = lanes.take(Timestamp(0)).expect("due");
        lanes.disable("a", Timestamp(0));
        lanes.done(&lane, Some(Timestamp(0)));
        lanes.push(&delivery("a|2", "y", 0));
        assert_eq!((lanes.take(Timestamp(9)), lanes.due()), (None, None));
        lanes.enable("a");
        assert_eq!(lanes.take(Timestamp(9)).expect("due").1, "x");
        assert_eq!(lanes.take(Timestamp(9)).expect("due").1, "y");
    }
}

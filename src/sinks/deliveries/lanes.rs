//! What waits in which lane. Pure: bodies stay in the store, here are only names and times.
//!
//! Order within a lane is the order in which deliveries became owed; the head alone is tried, so a failing head holds up its
//! own lane and no other. For the same reason each lane has its own room here: what finds none stays in the store until the
//! lane is empty. A disabled endpoint's lanes have no room at all.

use crate::engine::model::Timestamp;
use crate::engine::sink::Delivery;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// All lanes.
pub(super) struct DeliveryQueues {
    lanes: HashMap<Arc<str>, DeliveryQueue>,
    /// Most deliveries of one lane.
    pub room: usize,
    /// Heads that wait, by time: (next attempt, lane).
    heads: BTreeSet<(Timestamp, Arc<str>)>,
    disabled: BTreeMap<String, Timestamp>,
    /// DeliveryQueues that are empty and have more in the store, by the first of it.
    needs_refill: BTreeMap<String, Arc<str>>,
}

struct DeliveryQueue {
    endpoint: Arc<str>,
    /// Id and earliest attempt, oldest first.
    queue: VecDeque<(String, Timestamp)>,
    /// The first delivery that found no room; it and those behind it are in the store alone.
    beyond: Option<String>,
    busy: bool,
}

impl DeliveryQueues {
    /// With room for so many deliveries in each lane, at least one. `disabled` are endpoints that get nothing for now, and since
    /// when.
    pub fn new(room: usize, disabled: BTreeMap<String, Timestamp>) -> Self {
        let (lanes, heads, needs_refill) = (HashMap::new(), BTreeSet::new(), BTreeMap::new());
        DeliveryQueues { lanes, room: room.max(1), heads, disabled, needs_refill }
    }

    /// A delivery is owed. Those of one lane come in order; one that is here already, or behind one that found no room, is
    /// passed over.
    pub fn push(&mut self, delivery: &Delivery) {
        let name: Arc<str> = delivery.lane.as_str().into();
        let lane = self.lanes.entry(name.clone()).or_insert_with(|| DeliveryQueue {
            endpoint: delivery.endpoint.as_str().into(),
            queue: VecDeque::new(),
            beyond: None,
            busy: false,
        });
        let passed_over = match &lane.beyond {
            Some(first) => *first != delivery.id,
            None => lane.queue.iter().any(|(id, _)| *id == delivery.id),
        };
        if passed_over {
            return;
        }
        self.needs_refill.remove(&delivery.id);
        if lane.queue.len() >= self.room || self.disabled.contains_key(&*lane.endpoint) {
            lane.beyond = Some(delivery.id.clone());
            return;
        }
        lane.beyond = None;
        lane.queue.push_back((delivery.id.clone(), delivery.next_at));
        self.wait(&name);
    }

    /// A lane that is empty and has more in the store, and the first of it.
    pub fn needs_refill(&mut self) -> Option<(String, Arc<str>)> {
        self.needs_refill.pop_first()
    }

    /// Whether a lane takes what comes next of it.
    pub fn takes(&self, name: &Arc<str>) -> bool {
        self.lanes.get(name).is_some_and(|lane| lane.beyond.is_none())
    }

    /// A head that is due; its lane is busy until [`done`](DeliveryQueues::done).
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
            _ => drop(lane.queue.pop_front()),
        }
        if lane.queue.is_empty() && lane.beyond.is_none() {
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

    /// A lane goes on: its head waits for its time, or is to be read first.
    fn wait(&mut self, name: &Arc<str>) {
        let Some(lane) = self.lanes.get(name) else { return };
        if lane.busy || self.disabled.contains_key(&*lane.endpoint) {
            return;
        }
        match (lane.queue.front(), &lane.beyond) {
            (Some((_, at)), _) => drop(self.heads.insert((*at, name.clone()))),
            (None, Some(first)) => drop(self.needs_refill.insert(first.clone(), name.clone())),
            (None, None) => {}
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
        let mut lanes = DeliveryQueues::new(9, BTreeMap::new());
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
        assert_eq!((lanes.take(now), lanes.lanes.len()), (None, 1), "z is on its way");
    }

    #[test]
    fn a_lane_keeps_its_order_when_it_is_read_again() {
        let mut lanes = DeliveryQueues::new(2, BTreeMap::new());
        let all = ["1", "2", "3", "4", "5"].map(|id| delivery("a|1", id, 0));
        let mut got = Vec::new();
        // What is not delivered is read again and again, each time from the very beginning.
        for _ in 0..3 {
            all.iter().chain(&all).filter(|d| !got.contains(&d.id)).for_each(|d| lanes.push(d));
            while let Some((lane, id)) = lanes.take(Timestamp(0)) {
                got.push(id);
                lanes.done(&lane, None);
            }
        }
        assert_eq!((got.concat().as_str(), lanes.needs_refill()), ("12345", None));
    }

    #[test]
    fn a_disabled_endpoint_waits() {
        let mut lanes = DeliveryQueues::new(9, BTreeMap::new());
        lanes.push(&delivery("a|1", "x", 0));
        let (lane, _) = lanes.take(Timestamp(0)).expect("due");
        lanes.disable("a", Timestamp(0));
        lanes.done(&lane, Some(Timestamp(0)));
        lanes.push(&delivery("a|2", "y", 0));
        assert_eq!((lanes.take(Timestamp(9)), lanes.due()), (None, None));
        lanes.enable("a");
        assert_eq!(lanes.take(Timestamp(9)).expect("due").1, "x");
        assert_eq!((lanes.take(Timestamp(9)), lanes.needs_refill()), (None, Some(("y".into(), "a|2".into()))));
        lanes.push(&delivery("a|2", "y", 0));
        assert_eq!(lanes.take(Timestamp(9)).expect("due").1, "y");
    }
}

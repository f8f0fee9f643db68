//! An operator that sees one engine time at a time: the net updates of an epoch, once no more can come.

use differential_dataflow::VecCollection;
use differential_dataflow::consolidation::consolidate;
use std::collections::BTreeMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::{Capability, Operator};

/// Calls `logic` with the net updates of each epoch that has any, in order, and of epoch `first` in any case. Updates go to the
/// worker that `route` says.
///
/// The output moves on only after `logic` is through with an epoch: what a probe on it shows is done.
pub fn each_epoch<'s, D, O>(
    updates: VecCollection<'s, u64, D, isize>,
    name: &str,
    route: impl Fn(&D) -> u64 + 'static,
    first: Option<u64>,
    mut logic: impl FnMut(u64, Vec<(D, isize)>) -> Vec<O> + 'static,
) -> Stream<'s, u64, Vec<O>>
where
    D: differential_dataflow::ExchangeData,
    O: Clone + 'static,
{
    let mut waiting: BTreeMap<u64, (Capability<u64>, Vec<(D, isize)>)> = BTreeMap::new();
    let routed = Exchange::new(move |(data, _, _): &(D, u64, isize)| route(data));
    updates.inner.unary_frontier::<CapacityContainerBuilder<Vec<O>>, _, _, _>(routed, name, |capability, _| {
        waiting.extend(first.map(|first| (first, (capability.delayed(&first), Vec::new()))));
        move |(input, frontier), output| {
            input.for_each(|capability, data| {
                for (row, epoch, diff) in data.drain(..) {
                    let keep = || (capability.delayed(&epoch, 0), Vec::new());
                    waiting.entry(epoch).or_insert_with(keep).1.push((row, diff));
                }
            });
            while let Some(next) = waiting.first_entry() {
                if frontier.less_equal(next.key()) {
                    break;
                }
                let (epoch, (until_done, mut updates)) = next.remove_entry();
                consolidate(&mut updates);
                let out = logic(epoch, updates);
                output.session(&until_done).give_iterator(out.into_iter());
            }
        }
    })
}

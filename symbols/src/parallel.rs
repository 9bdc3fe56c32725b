//! Work shared among the machine's processors, its results in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// More threads than this do not help: reading memory is the limit then.
const MAX_THREADS: usize = 16;

/// Bytes of each thread's stack, most of which is never touched: what a main thread has. Demanglers call themselves.
pub(crate) const STACK: usize = 8 << 20;

/// `work` of each number below `count`, in order. One piece of work should take far longer than the microseconds that
/// a thread takes to start.
pub fn map<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = if count < 2 { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    let threads = threads.min(count).min(MAX_THREADS);
    if threads < 2 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            done.push((number, work(number)));
        }
    };
    let mut all = thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads).map(|_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, take)).collect();
        let mut all = take();
        // Where no thread could be started, the others did its share.
        for other in others.into_iter().flatten() {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_unstable_by_key(|&(number, _)| number);
    all.into_iter().map(|(_, done)| done).collect()
}

/// `work` of chunks of at most `size` items, in order.
pub fn map_chunks<I: Sync, T: Send>(items: &[I], size: usize, work: impl Fn(&[I]) -> T + Sync) -> Vec<T> {
    let chunk = |number: usize| items.get(number * size..).map_or(&[][..], |rest| rest.get(..size).unwrap_or(rest));
    map(items.len().div_ceil(size), |number| work(chunk(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_complete() {
        for count in [0, 1, 2, 1000] {
            assert_eq!(map(count, |n| 2 * n), (0..count).map(|n| 2 * n).collect::<Vec<_>>());
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(map_chunks(&items, 7, <[usize]>::to_vec).concat(), items);
        }
    }
}

//! Data-parallel training on one device. A batch is split into shards; shard `i` goes to replica `i
//! mod replicas`, which adds gradients to its own copy, in order.
//!
//! The number of replicas depends on the size of the parameters only, which bounds the memory, and
//! never on the number of threads. Replicas are summed in a fixed order, so 1 thread and 16 give
//! the same bits.

use std::ops::Range;

use crate::profile::Part;
use crate::{Device, Grads, Params, Workspace, parallel};

/// More replicas cost more in zeroing and summing gradients than they gain.
const MAX_REPLICAS: usize = 8;
/// Limit on the bytes of all gradient copies; there is always one. With fewer copies than threads,
/// threads share the work of a shard.
const MAX_BYTES: usize = 128 << 20;

/// Gradient copies for data-parallel steps.
#[derive(Debug)]
pub struct Replicas {
    grads: Vec<Grads>,
}

impl Replicas {
    /// Replicas for models of the size of `params`.
    pub fn new(params: &Params) -> Replicas {
        let replicas = Replicas::count_for(params.layout.len);
        Replicas { grads: (0..replicas).map(|_| Grads::zeros_like(params)).collect() }
    }

    /// Number of replicas of a model with `parameters` parameters.
    pub fn count_for(parameters: usize) -> usize {
        let bytes = parameters.max(1) * size_of::<f32>();
        // A power of two spreads shards evenly over replicas, and replicas over threads.
        1 << (MAX_BYTES / bytes).clamp(1, MAX_REPLICAS).ilog2()
    }

    /// Number of replicas: at most this many shards are computed at the same time.
    pub fn count(&self) -> usize {
        self.grads.len()
    }

    /// Zeroes all replicas, runs `f(shard, workspace, grads)` for every shard in `0..shards`, and
    /// returns the summed gradients and the results in shard order. Replicas run in parallel; the
    /// shards of a replica run in order. Returns the first error in shard order.
    pub fn run<T: Send, E: Send>(
        &mut self,
        shards: usize,
        f: impl Fn(usize, &mut Workspace, &mut Grads) -> Result<T, E> + Sync,
    ) -> Result<(&mut Grads, Vec<T>), E> {
        let replicas = shards.clamp(1, self.grads.len());
        let device = self.grads[0].layout.device.clone();
        let Device::Cpu(cpu, _) = &device;
        let mut work: Vec<(&mut Grads, Vec<Result<T, E>>)> =
            self.grads[..replicas].iter_mut().map(|grads| (grads, Vec::new())).collect();
        // Whole rounds of shards run on as many replicas at once as keep every thread busy. The
        // remaining shards run one by one, shared by all threads. Each replica still adds its
        // shards in order.
        let at_once = if replicas < device.threads() {
            replicas
        } else {
            replicas - replicas % device.threads()
        };
        let whole_rounds = shards / replicas * replicas;
        let add = |replica: usize,
                   shards: Range<usize>,
                   tasks,
                   grads: &mut Grads,
                   results: &mut Vec<_>| {
            if shards.start == replica {
                cpu.profile.time(Part::Replicas, device.threads_at(tasks), || grads.zero());
            }
            device.with_workspace(tasks, |workspace| {
                for shard in shards.step_by(replicas) {
                    if matches!(results.last(), Some(Err(_))) {
                        break;
                    }
                    results.push(f(shard, workspace, grads));
                }
            });
        };
        let tasks = device.tasks_per_item(replicas);
        parallel::for_each(&device, &mut work[..at_once], &|replica, (grads, results)| {
            add(replica, replica..whole_rounds.max(replica), tasks, grads, results);
        });
        let tasks = device.tasks_per_item(1);
        device.install(|_| {
            for (replica, (grads, results)) in work.iter_mut().enumerate() {
                let start = if replica < at_once { whole_rounds + replica } else { replica };
                if replica >= at_once || start < shards {
                    add(replica, start..shards, tasks, grads, results);
                }
            }
        });
        let mut results: Vec<_> =
            work.into_iter().map(|(_, results)| results.into_iter()).collect();
        // A replica that stopped has its error before its first missing result.
        let results = (0..shards)
            .map(|shard| results[shard % replicas].next().expect("replicas stop only at an error"))
            .collect::<Result<Vec<T>, E>>()?;
        let (sum, others) =
            self.grads[..replicas].split_first_mut().expect("there is always one replica");
        cpu.profile.time(Part::Replicas, device.threads(), || sum.add_all(others));
        Ok((sum, results))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Init, ParamSpec, Role};

    fn params(threads: usize) -> Params {
        let spec =
            ParamSpec { name: "w".into(), shape: vec![3, 2], init: Init::Ones, role: Role::Hidden };
        Params::init(&Device::cpu(Some(threads)), vec![spec], 0)
    }

    #[test]
    fn sums_every_shard_once_and_keeps_their_order() {
        for threads in [1, 2] {
            let params = params(threads);
            let mut replicas = Replicas::new(&params);
            // The second run must not see what the first left behind.
            for shards in [0, 1, 5, 29, 3] {
                let id = params.id("w").unwrap();
                let (grads, results) = replicas
                    .run(shards, |shard, _, grads| {
                        grads
                            .slice_mut(id)
                            .unwrap()
                            .iter_mut()
                            .for_each(|g| *g += (shard + 1) as f32);
                        Ok::<_, ()>(shard * 10)
                    })
                    .unwrap();
                assert_eq!(grads.read(id), [(shards * (shards + 1) / 2) as f32; 6]);
                assert_eq!(results, (0..shards).map(|i| i * 10).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn returns_the_first_error_in_shard_order() {
        for threads in [1, 2] {
            let params = params(threads);
            let mut replicas = Replicas::new(&params);
            let result = replicas.run(30, |shard, _, _| match shard {
                // Shard 13 fails in another replica, long before shard 12 runs.
                12 | 13 | 28 => Err(shard),
                _ => Ok(()),
            });
            assert_eq!(result.err(), Some(12));
        }
    }
}

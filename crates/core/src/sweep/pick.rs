//! Which combinations become experiments, as one index into the values of each
//! argument.

use std::collections::HashSet;

use super::random::Random;

/// One index for each argument.
pub(super) type Pick = Vec<u32>;

/// The first `count` combinations, the first argument outermost.
pub(super) fn all(sizes: &[u64], count: u64) -> impl Iterator<Item = Pick> {
    (0..count).map(|index| combination(sizes, index))
}

/// `count` of the `total` combinations, each set equally likely, in an order
/// that is by chance too: the first half of the experiments is a fair sample of
/// all.  `count` is at most `total`.
pub(super) fn by_chance(
    sizes: &[u64],
    total: u128,
    count: u64,
    mut random: Random,
) -> Box<dyn Iterator<Item = Pick> + '_> {
    if total <= 2 * u128::from(count) {
        let numbers = shuffled(total as u64, count, &mut random);
        return Box::new(numbers.into_iter().map(|index| combination(sizes, index)));
    }
    let mut seen = HashSet::new();
    Box::new((0..count).map(move |_| {
        // At least half of all combinations are free at every draw, so two draws
        // find one on average, however many there are.
        loop {
            let pick = drawn(sizes, &mut random);
            if seen.insert(number(sizes, &pick)) {
                return pick;
            }
        }
    }))
}

fn drawn(sizes: &[u64], random: &mut Random) -> Pick {
    sizes
        .iter()
        .map(|&size| {
            if size > 1 {
                random.below(size) as u32
            } else {
                0
            }
        })
        .collect()
}

/// The number of a combination; the inverse of [`combination`].  Where numbers
/// are too short for it two combinations may share one, and then one of them is
/// drawn again for nothing.
fn number(sizes: &[u64], pick: &[u32]) -> u128 {
    sizes
        .iter()
        .zip(pick)
        .fold(0, |number: u128, (&size, &index)| {
            number
                .wrapping_mul(u128::from(size))
                .wrapping_add(u128::from(index))
        })
}

/// The first `count` of the numbers below `total`, shuffled (Fisher and Yates).
fn shuffled(total: u64, count: u64, random: &mut Random) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..total).collect();
    for at in 0..count {
        let from = at + random.below(total - at);
        numbers.swap(at as usize, from as usize);
    }
    numbers.truncate(count as usize);
    numbers
}

/// The combination with this number when all are counted, the last argument
/// running fastest.
fn combination(sizes: &[u64], index: u64) -> Pick {
    let mut rest = index;
    let mut pick = vec![0; sizes.len()];
    for (slot, &size) in pick.iter_mut().zip(sizes).rev() {
        *slot = (rest % size.max(1)) as u32;
        rest /= size.max(1);
    }
    pick
}

//! Numbers by chance that are the same for ever.
//!
//! A seed is written down so that a sweep can be repeated on another machine,
//! years later.  So everything here is fixed by this file: the generator is
//! ChaCha8, its words become numbers by the rules below, and logarithms and the
//! like come from `libm`, whose last digit does not depend on the machine.
//! Changing any of it changes what old seeds mean: the golden test notices.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Whole numbers by chance reach at most this far: what every script can read.
const WHOLE_MAX: f64 = i64::MAX as f64;

/// Above this exponent a 2 is less likely than one draw in 2^64, and the powers
/// below leave the range of numbers.
const ZIPF_EXPONENT_MAX: f64 = 64.0;

/// A stream of numbers by chance.
#[derive(Debug, Clone)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    /// The stream `stream` of `seed`: the key is the seed as eight little-endian
    /// bytes followed by zeros.  Streams of one seed do not depend on each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(stream);
        Self(generator)
    }

    /// A whole number below `bound`, all equally likely; 0 when `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // Words beyond the last full multiple of `bound` would favour small numbers.
        let excess = (u64::MAX % bound + 1) % bound;
        loop {
            let word = self.0.next_u64();
            if word <= u64::MAX - excess {
                return word % bound;
            }
        }
    }

    /// In (0, 1), never an end: its logarithm is always finite.
    pub(super) fn unit(&mut self) -> f64 {
        const STEPS: f64 = (1_u64 << 52) as f64;
        ((self.0.next_u64() >> 12) as f64 + 0.5) / STEPS
    }

    /// Mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -libm::log(self.unit())
    }

    /// Mean 0, standard deviation 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// Scale 1 (Marsaglia and Tsang).
    pub(super) fn gamma(&mut self, shape: f64) -> f64 {
        libm::exp(self.gamma_log(shape))
    }

    /// The logarithm of [`Random::gamma`]: small shapes give numbers too small to hold.
    fn gamma_log(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let larger = self.gamma_log(shape + 1.0);
            return larger + libm::log(self.unit()) / shape;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let root = 1.0 + c * x;
            if root <= 0.0 {
                continue;
            }
            let v = root * root * root;
            if libm::log(self.unit()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return libm::log(d) + libm::log(v);
            }
        }
    }

    pub(super) fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.gamma_log(a), self.gamma_log(b));
        1.0 / (1.0 + libm::exp(y - x))
    }

    pub(super) fn chi_square(&mut self, freedom: f64) -> f64 {
        2.0 * self.gamma(freedom / 2.0)
    }

    /// Inverse Gaussian (Michael, Schucany and Haas).
    pub(super) fn wald(&mut self, mean: f64, scale: f64) -> f64 {
        let normal = self.normal();
        let y = mean * normal * normal;
        let sum = y + (4.0 * scale * y + y * y).sqrt();
        // The smaller of the two roots, written so that nothing cancels.
        let x = if sum > 0.0 {
            mean * 4.0 * scale * y / (sum * sum)
        } else {
            mean
        };
        if self.unit() <= mean / (mean + x) {
            x
        } else {
            mean * mean / x
        }
    }

    /// Angle around 0 in (-π, π] (Best and Fisher).
    pub(super) fn von_mises(&mut self, mu: f64, kappa: f64) -> f64 {
        use std::f64::consts::{PI, TAU};
        if kappa < 1e-8 {
            return PI * (2.0 * self.unit() - 1.0);
        }
        if kappa > 1e6 {
            return wrap_angle(mu + self.normal() / kappa.sqrt());
        }
        let r = 1.0 + (1.0 + 4.0 * kappa * kappa).sqrt();
        let rho = (r - (2.0 * r).sqrt()) / (2.0 * kappa);
        let s = (1.0 + rho * rho) / (2.0 * rho);
        loop {
            let z = libm::cos(PI * self.unit());
            let w = (1.0 + s * z) / (s + z);
            let y = kappa * (s - w);
            let v = self.unit();
            if y * (2.0 - y) - v >= 0.0 || libm::log(y / v) + 1.0 - y >= 0.0 {
                let angle = libm::acos(w.clamp(-1.0, 1.0));
                let signed = if self.unit() < 0.5 { -angle } else { angle };
                return wrap_angle((mu % TAU) + signed);
            }
        }
    }

    /// Trials up to the first success, from 1.
    pub(super) fn geometric(&mut self, p: f64) -> i64 {
        if p >= 1.0 {
            return 1;
        }
        whole((libm::log(self.unit()) / libm::log1p(-p)).ceil().max(1.0))
    }

    /// Zipf without an end, exponent above 1 (Devroye).
    pub(super) fn zipf(&mut self, a: f64) -> i64 {
        if a > ZIPF_EXPONENT_MAX {
            return 1;
        }
        let b = libm::pow(2.0, a - 1.0);
        loop {
            let x = libm::pow(self.unit(), -1.0 / (a - 1.0)).floor();
            if x >= WHOLE_MAX {
                return i64::MAX;
            }
            let t = libm::pow(1.0 + 1.0 / x, a - 1.0);
            if self.unit() * x * (t - 1.0) / (b - 1.0) <= t / b {
                return whole(x);
            }
        }
    }
}

fn wrap_angle(angle: f64) -> f64 {
    use std::f64::consts::{PI, TAU};
    let rest = angle % TAU;
    if rest > PI {
        rest - TAU
    } else if rest < -PI {
        rest + TAU
    } else {
        rest
    }
}

/// The conversion saturates, so that no value is out of reach.
fn whole(value: f64) -> i64 {
    value as i64
}

/// Whole numbers with their chances, for distributions that are known by how
/// likely a number is compared with the one before it.
#[derive(Debug, Clone)]
pub(super) struct Table {
    first: i64,
    /// Sums of the chances up to each number; not scaled to 1.
    sums: Vec<f64>,
}

impl Table {
    /// Numbers a table holds at most.  Lower: wide distributions are refused
    /// that people may want.  Higher: one argument takes more than 8 MiB and a
    /// noticeable time to prepare.
    pub(super) const LEN_MAX: usize = 1_000_000;

    /// Beyond it neighbouring numbers are the same real number, and ratios lie.
    const MODE_MAX: u64 = 1 << 52;

    /// Chances below this part of the largest are left out: no sum can feel them.
    const CHANCE_MIN: f64 = 1e-20;

    /// `ratio(k)` is the chance of `k + 1` divided by that of `k`; `mode` is a
    /// most likely number, within `least..=most`.  None when the table would be
    /// too long.
    pub(super) fn new(
        mode: i64,
        least: i64,
        most: i64,
        ratio: impl Fn(f64) -> f64,
    ) -> Option<Self> {
        if mode.unsigned_abs() > Self::MODE_MAX {
            return None;
        }
        let mut below = Vec::new();
        let mut chance = 1.0;
        let mut at = mode;
        while at > least {
            chance /= ratio((at - 1) as f64);
            if chance.is_nan() || chance < Self::CHANCE_MIN {
                break;
            }
            below.push(chance);
            at -= 1;
            if below.len() > Self::LEN_MAX {
                return None;
            }
        }
        let first = at;
        let mut sum = 0.0;
        let mut sums = Vec::with_capacity(below.len() + 1);
        for chance in below.into_iter().rev().chain([1.0]) {
            sum += chance;
            sums.push(sum);
        }
        chance = 1.0;
        at = mode;
        while at < most {
            chance *= ratio(at as f64);
            if chance.is_nan() || chance < Self::CHANCE_MIN {
                break;
            }
            sum += chance;
            sums.push(sum);
            at += 1;
            if sums.len() > Self::LEN_MAX {
                return None;
            }
        }
        Some(Self { first, sums })
    }

    pub(super) fn draw(&self, random: &mut Random) -> i64 {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let target = random.unit() * total;
        let index = self.sums.partition_point(|&sum| sum < target);
        self.first + index.min(self.sums.len().saturating_sub(1)) as i64
    }
}

//! Named machine shapes: what people write as `--instance_type`.
//!
//! The names of the original product are understood, AWS names and its own
//! (`4_CPU_16GB`, `8_V100_768GB`): each asks for that many CPUs, GPUs and that much
//! memory.  Whether some machine has them is the scheduler's answer.

use grid_core::cluster::Need;
use grid_core::spec::Resources;

use crate::error::{Error, Result};

/// AWS name, CPUs, GPUs, memory in MiB.
const AWS: [(&str, u32, u32, u64); 32] = [
    ("t2.medium", 2, 0, 4 << 10),
    ("t2.large", 2, 0, 8 << 10),
    ("t2.xlarge", 4, 0, 16 << 10),
    ("t2.2xlarge", 8, 0, 32 << 10),
    ("t3.medium", 2, 0, 4 << 10),
    ("t3.large", 2, 0, 8 << 10),
    ("t3.xlarge", 4, 0, 16 << 10),
    ("t3.2xlarge", 8, 0, 32 << 10),
    ("m5a.large", 2, 0, 8 << 10),
    ("m5a.xlarge", 4, 0, 16 << 10),
    ("m5a.2xlarge", 8, 0, 32 << 10),
    ("m5a.4xlarge", 16, 0, 64 << 10),
    ("m5a.8xlarge", 32, 0, 128 << 10),
    ("m5a.12xlarge", 48, 0, 192 << 10),
    ("m5a.16xlarge", 64, 0, 256 << 10),
    ("m5a.24xlarge", 96, 0, 384 << 10),
    ("g2.8xlarge", 32, 4, 60 << 10),
    ("g3s.xlarge", 4, 1, 31_232),
    ("g3.4xlarge", 16, 1, 122 << 10),
    ("g3.8xlarge", 32, 2, 244 << 10),
    ("g3.16xlarge", 64, 4, 488 << 10),
    ("g4dn.xlarge", 4, 1, 16 << 10),
    ("g4dn.2xlarge", 8, 1, 32 << 10),
    ("g4dn.4xlarge", 16, 1, 64 << 10),
    ("g4dn.8xlarge", 32, 1, 128 << 10),
    ("g4dn.12xlarge", 48, 4, 192 << 10),
    ("g4dn.16xlarge", 64, 1, 256 << 10),
    ("p2.xlarge", 4, 1, 61 << 10),
    ("p3.2xlarge", 8, 1, 61 << 10),
    ("p3.8xlarge", 32, 4, 244 << 10),
    ("p3.16xlarge", 64, 8, 488 << 10),
    ("p3dn.24xlarge", 96, 8, 768 << 10),
];

/// What a named shape comes to.
pub(crate) fn shape(name: &str) -> Result<Need> {
    let known = AWS.iter().find(|(aws, ..)| aws.eq_ignore_ascii_case(name));
    if let Some((_, cpus, gpus, memory_mib)) = known {
        return Ok(Need {
            cpus: *cpus,
            gpus: *gpus,
            memory_bytes: memory_mib << 20,
        });
    }
    nickname(name).ok_or_else(|| {
        Error::invalid_hint(
            format!("there is no instance type '{name}'"),
            "leave --instance_type out for 1 CPU of this machine, ask with --cpus, --gpus and --memory 8G, \
             or write a shape such as 4_CPU_16GB",
        )
    })
}

/// `<number>_<type>_<memory>GB`.
fn nickname(name: &str) -> Option<Need> {
    let upper = name.to_ascii_uppercase();
    let mut parts = upper.split('_');
    let (number, kind, memory) = (parts.next()?, parts.next()?, parts.next()?);
    let number: u32 = number.parse().ok().filter(|n| *n > 0)?;
    let memory_gib: f64 = memory
        .strip_suffix("GB")?
        .parse()
        .ok()
        .filter(|gib: &f64| gib.is_finite() && *gib > 0.0)?;
    if parts.next().is_some() || memory_gib > 1e6 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a million GiB"
    )]
    let memory_bytes = (memory_gib * f64::from(1_u32 << 30)) as u64;
    if kind == "CPU" {
        return Some(Need {
            cpus: number,
            gpus: 0,
            memory_bytes,
        });
    }
    kind.bytes()
        .all(|b| b.is_ascii_alphanumeric())
        .then_some(Need {
            cpus: 1,
            gpus: number,
            memory_bytes,
        })
}

/// What the scheduler is asked for.  A shape that is not known was refused at submit.
pub(crate) fn need(resources: &Resources) -> Need {
    let shape = resources
        .instance_type
        .as_deref()
        .and_then(|name| shape(name).ok());
    resources.need(shape.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_their_numbers() {
        let gib = 1 << 30;
        for (name, cpus, gpus, memory_bytes) in [
            ("t2.medium", 2, 0, 4 * gib),
            ("P3.16xlarge", 64, 8, 488 * gib),
            ("4_CPU_16GB", 4, 0, 16 * gib),
            ("8_v100_32gb", 1, 8, 32 * gib),
            ("1_M60_30.5GB", 1, 1, 61 * gib / 2),
        ] {
            assert_eq!(
                shape(name).ok(),
                Some(Need {
                    cpus,
                    gpus,
                    memory_bytes
                }),
                "{name}"
            );
        }
        for name in [
            "",
            "x",
            "0_CPU_4GB",
            "2_CPU",
            "2_CPU_4",
            "2_CPU_-4GB",
            "2_CPU_infGB",
            "a_b_c_d",
        ] {
            assert!(shape(name).is_err(), "{name}");
        }
    }
}

//! Installs the original client for the tests, so that no test has to wait for it.

use std::process::ExitCode;

use grid_e2e::original::Clients;

fn main() -> ExitCode {
    Clients::ready();
    ExitCode::SUCCESS
}

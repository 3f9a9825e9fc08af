//! Runs Azurite until Ctrl-C, with an empty container in which a repository can be made by hand.

use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, SystemTime};

use keepstone_peers::azurite::{Azurite, PRIMARY};

const CONTAINER: &str = "demo";

/// How long the signature is valid: longer than anybody tries things out.
const VALID: Duration = Duration::from_hours(7 * 24);

fn main() -> io::Result<()> {
    let azurite = Azurite::start();
    azurite.create_container(&PRIMARY, CONTAINER);
    let endpoint = azurite.endpoint(&PRIMARY);
    let sas = PRIMARY.container_sas(CONTAINER, "rcl", SystemTime::now() + VALID);

    let mut output = io::stdout().lock();
    writeln!(
        output,
        "export KEEPSTONE_REPOSITORY='azblob://{}/{CONTAINER}?endpoint={endpoint}'",
        PRIMARY.name
    )?;
    writeln!(output, "# Rights to read, create and list, which is all that a backup needs:")?;
    writeln!(output, "export AZURE_STORAGE_SAS_TOKEN='{sas}'")?;
    writeln!(output, "# Instead of those, all rights:")?;
    writeln!(output, "# unset AZURE_STORAGE_SAS_TOKEN; export AZURE_STORAGE_KEY='{}'", PRIMARY.key)?;
    writeln!(output, "# Everything is in memory, and gone after Ctrl-C.")?;
    output.flush()?;
    loop {
        thread::park();
    }
}

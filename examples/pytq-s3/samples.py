#!/usr/bin/env python3
"""Makes the samples, the genes and the pipeline below $OUTPUT: eight pairs of FASTQ files, the same each time."""

import gzip
import os
import random
import shutil
from pathlib import Path

READS = 2_000
GENES = {f"gene{n}": word for n, word in enumerate(("ACGTAC", "GGATCC", "TTAACC", "CATCAT", "GAATTC"), 1)}


def reads(seed: int) -> str:
    """Return so many reads as FASTQ."""
    chance = random.Random(seed)
    rows = ("".join(chance.choices("ACGT", k=80)) for _ in range(READS))
    return "".join(f"@read{n}\n{row}\n+\n{'F' * 80}\n" for n, row in enumerate(rows))


def main() -> None:
    """Write all files."""
    output, here = Path(os.environ["OUTPUT"]), Path(__file__).resolve().parent
    for folder in ("S5810", "reference"):
        (output / folder).mkdir(parents=True)
    for sample in range(1, 9):
        for side in (1, 2):
            with gzip.open(output / "S5810" / f"mgshot_S5810Nr{sample}.{side}.fastq.gz", "wt") as file:
                file.write(reads(10 * sample + side))
    with gzip.open(output / "reference" / "genes.tsv.gz", "wt") as file:
        file.write("".join(f"{name}\t{word}\n" for name, word in GENES.items()))
    shutil.copy(here / "pipeline_rnd.sh", output / "reference")


if __name__ == "__main__":
    main()

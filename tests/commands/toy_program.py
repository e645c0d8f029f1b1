"""The command line with a toy extractor in the table: ``python -m tests.commands.toy_program extract …``."""

from __future__ import annotations

import torch

from geoaware import cli
from geoaware.commands import extract
from geoaware.features import EXTRACTORS, Entry


def main() -> None:
    torch.set_num_threads(1)
    EXTRACTORS["toy"] = Entry("tests.store.toy_extraction", "Toy", "a toy")
    if all(command.callback is not extract.extract for command in cli.app.registered_commands):
        cli.app.command()(extract.extract)
    cli.main()


if __name__ == "__main__":
    main()

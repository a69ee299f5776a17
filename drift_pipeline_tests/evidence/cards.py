"""A card as its three files in a folder, without a home around it."""

from pathlib import Path

from drift_pipeline.control.canonical import sha256
from drift_pipeline.evidence.card import ModelCard, card_files
from drift_pipeline.files import write_whole


def write_card(card: ModelCard, folder: Path) -> dict[str, str]:
    """Returns each file's sha256."""
    files = card_files(card)
    for name, page in files.items():
        write_whole(folder / name, page)
    return {name: sha256(page) for name, page in files.items()}

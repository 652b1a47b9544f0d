"""A finished model and its card to the Hugging Face hub: private, and only when it is asked for.

`python -m recipes.push RUN_FOLDER --to USER/NAME [--stage NAME] [--evaluation FOLDER ...]
[--public] [--dry-run]`. With --dry-run it prints what would go and asks no network. What goes is the
checkpoint in `final/` and the card, nothing else of the run: no rollouts, no optimizer.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.card import HUB_ID, add_source, card, source
from recipes.cli import guarded
from recipes.finished import Finished
from rl.run_folder import write_atomically

CARD = "README.md"
MB = 10**6


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What goes to the hub: files by their names there, and the card's text."""

    to: str
    files: dict[str, Path]
    card: str

    @property
    def lines(self) -> list[str]:
        """Names with sizes."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        sizes[CARD] = len(self.card.encode())
        return [f"  {name}  {size / MB:,.2f} MB" for name, size in sorted(sizes.items())]


def main(argv: Sequence[str] | None = None) -> int:
    """Send, or say what would be sent; 2 with one line for what a person can mend."""
    parser = argparse.ArgumentParser(prog="python -m recipes.push", description=__doc__)
    add_source(parser)
    parser.add_argument("--to", required=True, metavar="USER/NAME", help="of the hub")
    parser.add_argument("--public", action="store_true", help="anyone may read it")
    parser.add_argument("--dry-run", action="store_true", help="send nothing, ask no network")
    given = parser.parse_args(argv)
    return guarded(lambda: push(given))


def push(given: argparse.Namespace) -> None:
    """What the command line asks for. Raises ValueError with what to do."""
    found = source(given)
    parcel = parcel_of(found, given.to)
    seen = "public" if given.public else "private"
    verb = "would go" if given.dry_run else "goes"
    print("\n".join([f"to https://huggingface.co/{given.to}, {seen}, {verb}:", *parcel.lines]))
    if given.dry_run:
        print(f"nothing was sent; the card would be\n\n{parcel.card}")
        return
    check_token()
    write_atomically(found.card, parcel.card.encode())
    print(f"it is at {send(parcel, public=given.public)}")


def parcel_of(found: Finished, to: str) -> Parcel:
    """The checkpoint's files and its card. Raises ValueError if `to` is no name on the hub."""
    if not HUB_ID.fullmatch(to):
        raise ValueError(f"--to is {to!r}: give USER/NAME, in letters, digits, '-', '_' and '.'")
    files = {
        path.relative_to(found.final).as_posix(): path
        for path in sorted(found.final.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != CARD
    }
    return Parcel(to=to, files=files, card=card(found, to.partition("/")[2]))


def check_token() -> None:
    """Raise ValueError if nobody is logged in."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise ValueError(
            "there is no token of the Hugging Face hub: `hf auth login`, or set HF_TOKEN to one that "
            "may write"
        )


def send(parcel: Parcel, *, public: bool) -> str:
    """Make the repository if it is not there, and send all as one commit; gives its address.

    Raises:
        ValueError: No network, no right, or a repository that others can read already.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    api = HfApi()
    try:
        api.create_repo(parcel.to, private=not public, exist_ok=True)
        if not public and not api.repo_info(parcel.to).private:
            raise ValueError(
                f"{parcel.to} is there already and public: add --public, or choose another --to"
            )
        made = [CommitOperationAdd(name, path) for name, path in parcel.files.items()]
        made.append(CommitOperationAdd(CARD, parcel.card.encode()))
        done = api.create_commit(parcel.to, made, commit_message="Model and card, by Groupwise")
    except OfflineModeIsEnabled as error:
        raise ValueError("HF_HUB_OFFLINE is set: unset it to send") from error
    except HfHubHTTPError as error:
        told = " ".join(str(error).split())[:300]
        raise ValueError(f"the hub refused it ({told}): look at the token's rights") from error
    except (httpx.HTTPError, OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"the hub cannot be reached ({type(error).__name__}: {error}): there is no commit; the "
            "same command tries again"
        ) from error
    return done.commit_url


if __name__ == "__main__":
    sys.exit(main())

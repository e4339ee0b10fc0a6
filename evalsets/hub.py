"""Problems from the Hugging Face hub: single files at a pinned revision, or any data set by its id.

Pinned files are fetched one by one, not with `datasets.load_dataset`. Where the hub can't be reached, that function
takes any version in its cache, whatever the revision asked for, and a benchmark would silently use other problems.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infer.core.problem import Problem
from infer.errors import UserError, first_line
from infer.evalsets import files
from infer.evalsets.base import EvalSet
from infer.evalsets.rows import Columns, Read, Row, check, problems

SPEC = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<config>[\w.-]+))?")
SPLITS = ("test", "validation", "train")
LOCAL_COPY = "use a local copy: --on FILE.jsonl"


def pinned(name: str, repo: str, revision: str, file: str, read: Read | None = None) -> Iterator[Problem]:
    """The problems of one file of a hub data set at one commit: downloaded once, then read from the cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{name} is not in the local cache and the Hugging Face hub ({repo}) can't be reached; {LOCAL_COPY}"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{name} can't be loaded from the Hugging Face hub ({first_line(error)}); {LOCAL_COPY}"
        ) from error

    def load() -> Iterator[Problem]:
        if read is not None:
            return read(files.rows(path))
        return problems(files.rows(path), where=name, stem=name, columns=Columns())

    check(load(), name)
    return load()


def open_hub(spec: str, columns: Columns, split: str | None) -> EvalSet:
    """Makes the set of a hub data set `owner/name[@revision][:config]`. Nothing is fetched before `load()`."""
    parts = SPEC.fullmatch(spec)
    if parts is None:
        raise UserError(f"{spec!r} is not of the form owner/name[@revision][:config]")
    id, revision, config = parts["id"], parts["revision"], parts["config"]

    def load() -> Iterator[Problem]:
        table = _table(id, revision, config, split)

        def rows() -> Iterator[tuple[str, Row]]:
            return ((f"row {number}", row) for number, row in enumerate(table, 1))

        def found() -> Iterator[Problem]:
            return problems(rows(), where=spec, stem=id.rpartition("/")[2], columns=columns)

        check(found(), spec)
        return found()

    return EvalSet(
        name=id.rpartition("/")[2],
        summary=f"{spec} on the Hugging Face hub",
        source=f"{id}@{revision or 'main'}{f':{config}' if config else ''}",
        load=load,
    )


def _table(id: str, revision: str | None, config: str | None, split: str | None) -> Any:
    import datasets
    from datasets.packaged_modules.cache.cache import Cache

    try:
        builder = datasets.load_dataset_builder(id, config, revision=revision)
        if revision is not None and isinstance(builder, Cache) and builder.hash != revision:
            raise UserError(
                f"the Hugging Face hub can't be reached, and the local cache holds {id} at {builder.hash}, which is "
                f"not known to be {revision}: give that hash, or use a local copy: --on FILE.jsonl"
            )
        builder.download_and_prepare()
        splits = list(builder.info.splits or ())
        chosen = split or next((name for name in SPLITS if name in splits), None)
        if chosen is None or chosen not in splits:
            missing = f"has no split {split!r}" if split else "has none of the splits " + ", ".join(SPLITS)
            raise UserError(f"{id} {missing}; choose one with --split: {', '.join(splits)}")
        return builder.as_dataset(split=chosen)
    except ConnectionError:
        raise UserError(
            f"{id} is neither a file nor in the local cache, and the Hugging Face hub can't be reached; {LOCAL_COPY}"
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{id} can't be loaded from the Hugging Face hub: {first_line(error)}") from error

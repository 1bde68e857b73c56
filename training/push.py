"""A push: an artefact's folder becomes one commit of a model repository on the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from data.summary import markdown_table
from inference.artefact import CARD_FILE, load_artefact
from inference.backends import BACKENDS
from inference.backends.exports import REFERENCE_FILE
from inference.model_files import EXECUTES

_EXPECTED = frozenset({".json", ".md", ".model", ".onnx", ".safetensors", ".svg", ".txt", ".xml", ".yaml"})
_PLACE = re.compile(r"/[\w.]|~[\w./\\]|\.\.[/\\]|[A-Za-z]:[/\\]|\\\\|(file|s3|gs|az|abfs)://")
"""How a value begins that names a place on a machine or in a bucket, and not below the working folder."""


class PushError(ValueError):
    """A push that is refused or broke off; the message says why and names the mend."""


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What goes where. `files` maps names in the repository to bytes; `commit` is the address once it is there."""

    folder: Path
    files: dict[str, int]
    repo: str
    private: bool
    revision: str
    message: str
    endpoint: str
    warnings: tuple[str, ...]
    commit: str | None = None

    def __str__(self) -> str:
        seen = "private" if self.private else "public, unless it exists as private or its owner's default is private"
        return "\n".join(
            [
                markdown_table(["file", "bytes"], [*self.files.items(), ("total", sum(self.files.values()))]),
                f"repository: {self.repo}, branch {self.revision}, {seen}",
                f"endpoint: {self.endpoint}",
                f"commit message: {self.message}",
                *(f"warning: {warning}" for warning in self.warnings),
            ]
        )


def push(
    model: Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    dry_run: bool = False,
    endpoint: str | None = None,
) -> PushPlan:
    """Print what would go where, and send it in one commit unless it is a dry run, which needs no token or network.

    The repository and the branch are made where they are not there; what else the repository holds stays.

    Raises:
        ArtefactError: the artefact is broken; nothing is sent.
        PushError: the push is refused here or by the hub, or the hub is out of reach.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    files = _files(model)  # first: what it names says more than that the artefact is none
    assay = load_artefact(model)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PushError(f"--repo: {error}") from error
    if "/" not in repo:
        raise PushError(f"--repo {repo}: must be OWNER/NAME")
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        raise PushError("the endpoint (--endpoint or HF_ENDPOINT) must be http(s)://HOST, without a user or password")
    _check_card(model / CARD_FILE)
    message = message or f"promptassay {assay.fingerprint}"
    warnings = tuple(_says_too_much(model, files))
    plan = PushPlan(model, files, repo, private, revision or "main", message, endpoint, warnings)
    print(plan, flush=True)
    if not dry_run:
        plan = replace(plan, commit=_send(plan))
    print(f"sent: {plan.commit}" if plan.commit else "nothing was sent")
    return plan


def _files(folder: Path) -> dict[str, int]:
    """Names and sizes of all regular files that are neither hidden nor half-written, without exports.

    An export is made anew in a minute where it is used, and its formats may hold more than numbers.
    """
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    paths = {n: p for n, p in paths.items() if n.parts[0] not in BACKENDS}
    paths = {n: p for n, p in paths.items() if not any(x.startswith(".") or x.endswith(".writing") for x in n.parts)}
    if executing := [str(name) for name in paths if name.suffix.lower() in EXECUTES]:
        raise PushError(f"{folder}: {', '.join(executing)} can run code when loaded; remove it, no artefact needs it")
    if links := [str(name) for name, path in paths.items() if path.is_symlink()]:  # they can lead anywhere
        raise PushError(f"{folder}: {', '.join(links)}: links are not sent; copy the folder by cp -rL and push that")
    return {name.as_posix(): path.stat().st_size for name, path in paths.items() if path.is_file()}


def _check_card(path: Path) -> None:
    """Refuse metadata that the hub would refuse, as far as can be told without the hub (it checks them again)."""
    from huggingface_hub import ModelCard
    from huggingface_hub.utils import validate_repo_id
    from yaml import YAMLError

    if not path.is_file():
        raise PushError(f"{path}: missing; copy the whole artefact folder again")
    try:
        card = ModelCard.load(path).data
        for base in [card.base_model] if isinstance(card.base_model, str) else card.base_model or []:
            validate_repo_id(base)
        missing = [x for x in ("license", "library_name", "pipeline_tag") if not isinstance(card.get(x), str)]
        if missing:
            raise ValueError(f"no {', '.join(missing)}")
    except (ValueError, TypeError, AttributeError, YAMLError) as error:
        why = " ".join(str(error).split())
        raise PushError(f"{path}: its metadata are not valid: {why}; mend its first lines, or train again") from error


def _says_too_much(folder: Path, files: dict[str, int]) -> Iterator[str]:
    """What would be published and perhaps should not. Only a warning: a changed value changes the fingerprint."""
    card = (folder / CARD_FILE).read_text(encoding="utf-8")
    for name in files:
        if Path(name).suffix.lower() not in _EXPECTED:
            yield f"{name} is no part of an artefact; be sure that it may be seen"
        if name.endswith((".json", ".yaml")) and not name.endswith(
            ("tokenizer.json", REFERENCE_FILE)
        ):  # they look like paths
            try:
                text = (folder / name).read_text(encoding="utf-8")
                content = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
            except (ValueError, RecursionError, yaml.YAMLError) as error:
                kind = Path(name).suffix[1:].upper()
                raise PushError(f"{folder / name}: not valid {kind}; remove it, or copy the folder again") from error
            for field, value in _strings(content):
                if _PLACE.match(value) or field == "provenance.data":
                    where = f"{name} and {CARD_FILE} say" if value in card else f"{name} says"
                    yield f"{where} where your data or files lay: {field} = {value[:200]}"


def _strings(content: Any, field: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield field, content
    elif isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _strings(value, f"{field}.{key}" if field else str(key))


def _send(plan: PushPlan) -> str:
    """Send it; the commit's address.

    The files are named one by one: what goes is what was checked, and in one commit, where the client's
    `upload_folder` may make several. So the repository never shows half an artefact, and a repeat is safe.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise PushError("HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set; unset it to push. Nothing was sent")
    token = None
    try:
        token = get_token()
        if not token:
            raise PushError("no token; run `hf auth login`, or set HF_TOKEN. Nothing was sent")
        api = HfApi(endpoint=plan.endpoint, token=token)
        api.create_repo(plan.repo, private=plan.private or None, exist_ok=True)
        # The hub ignores `private` for a repository that exists: what was to stay private would be public.
        if plan.private and not api.model_info(plan.repo).private:
            raise PushError(f"{plan.repo} exists and is public; make it private in its settings. Nothing was sent")
        if plan.revision != "main":
            api.create_branch(plan.repo, branch=plan.revision, exist_ok=True)
        added = [CommitOperationAdd(name, plan.folder / name) for name in plan.files]
        commit = api.create_commit(plan.repo, added, commit_message=plan.message, revision=plan.revision)
    except PushError:
        raise
    except Exception as error:  # the hub's client raises the errors of whatever carries its requests
        raise PushError(f"{plan.endpoint} {_explain(error, token or '')}") from error
    return str(commit.commit_url)


def _explain(error: Exception, token: str) -> str:
    """Why a push broke off and the mend. Of the error only the hub's own words: addresses and headers hold secrets."""
    from huggingface_hub.errors import HfHubHTTPError

    def cleaned(words: str | None) -> str:
        return " ".join((words or "").replace(token or "\0", "[token]").split())[:300]

    if isinstance(error, ValueError) and CARD_FILE in str(error):  # the hub looks at the card before all else
        return f"refuses the card: {cleaned(str(error))}"
    answer = error if isinstance(error, HfHubHTTPError) else error.__cause__  # a file's upload wraps its error
    if isinstance(answer, HfHubHTTPError):
        refused = {
            401: "does not accept the token; run `hf auth login`, or set HF_TOKEN to a valid one",
            403: "does not let this token write there; use one with write access (`hf auth login` or HF_TOKEN)",
        }
        status = answer.response.status_code
        return f"{refused.get(status, 'refused the push')}. It answered {status}: {cleaned(answer.server_message)}"
    if isinstance(error, ValueError | KeyError | TypeError):
        return f"does not answer as a Hugging Face hub does ({type(error).__name__}); check --endpoint and HF_ENDPOINT"
    mend = "check the connection and run the same command again; a hub without xet needs HF_HUB_DISABLE_XET=1"
    return f"cannot be reached ({type(error).__name__}); {mend}"

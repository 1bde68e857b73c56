"""A push, against a stand-in for the hub on this machine that answers as huggingface_hub 2 asks."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id

from inference.artefact import ArtefactError, load_artefact
from training.push import PushError, push

from .conftest import ROOT

TOKEN = "hf_" + "secretsecret" * 3  # the shape of a token; nobody's
REPO = "somebody/an-artefact"
CODE = """
import json, sys
from pathlib import Path
from training.push import PushError, push
try:
    push(Path(sys.argv[1]), sys.argv[2], **json.loads(sys.argv[3]))
except PushError as error:
    sys.exit(f"error: {error}")
"""


@dataclass
class Commit:
    branch: str
    message: str
    files: dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """One model repository in memory: *.safetensors go by LFS as on the real hub, everything else in the commit."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.connections = 0
        self.seen = []  # (method, path, authorization)
        self.visibility = None  # of the repository, once it exists
        self.branches = {"main"}
        self.blobs = {}
        self.commits = []
        self.fail = {}  # part of "METHOD path" → (status, content) in place of the answer

    def process_request(self, request, client_address):
        self.connections += 1
        super().process_request(request, client_address)

    @property
    def tree(self):
        return {name: content for commit in self.commits for name, content in commit.files.items()}


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self):
        hub, path, body = self.server, self.path.split("?")[0], self.body()
        hub.seen.append((self.command, path, self.headers.get("Authorization")))
        for part, (status, content) in hub.fail.items():
            if part in f"{self.command} {path}":
                return self.reply(content, status)
        model = f"/api/models/{REPO}"
        if self.command == "PUT" and path.startswith("/lfs/"):
            hub.blobs[path.removeprefix("/lfs/")] = body
            return self.reply({})
        asked = json.loads(body) if body and "commit" not in path else None
        if path == "/api/repos/create":
            exists, hub.visibility = hub.visibility, hub.visibility or asked.get("visibility", "public")
            assert f"{asked['organization']}/{asked['name']}" == REPO
            return self.reply({"url": f"{hub.url}/{REPO}"}, 409 if exists else 200)
        if path in (model, f"{model}/revision/main"):
            return self.reply({"id": REPO, "private": hub.visibility == "private", "sha": "0" * 40})
        if path == "/api/validate-yaml":
            assert asked["repoType"] == "model"
            return self.reply({"errors": [], "warnings": []})
        if path.startswith(f"{model}/branch/"):
            hub.branches.add(path.removeprefix(f"{model}/branch/"))
            return self.reply({})
        if path.startswith(f"{model}/preupload/"):
            files = [self.mode(file["path"]) for file in asked["files"]]
            return self.reply({"files": files})
        if path == f"/{REPO}.git/info/lfs/objects/batch":
            actions = [{**x, "actions": {"upload": {"href": f"{hub.url}/lfs/{x['oid']}"}}} for x in asked["objects"]]
            known = [x for x in asked["objects"] if x["oid"] in hub.blobs]
            return self.reply(
                {"transfer": "basic", "objects": [x for x in actions if x["oid"] not in hub.blobs] + known}
            )
        if path.startswith(f"{model}/commit/") and path.rpartition("/")[2] in hub.branches:
            hub.commits.append(self.commit(path.rpartition("/")[2], body))
            return self.reply({"commitUrl": f"{hub.url}/{REPO}/commit/{'1' * 40}", "commitOid": "1" * 40})
        return self.reply({"error": f"nobody asks for {self.command} {path}"}, 404)

    def mode(self, name):
        """How a file is to come, and the hash of what is there, by which the client leaves out what has not changed."""
        content, lfs = self.server.tree.get(name), name.endswith(".safetensors")
        known = {}
        if content is not None and lfs:
            known = {"oid": hashlib.sha256(content).hexdigest()}
        elif content is not None:
            known = {"oid": hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()}
        return {"path": name, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, **known}

    def commit(self, branch, body):
        header, *lines = map(json.loads, body.splitlines())
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            else:
                assert line["key"] == "file"
                files[value["path"]] = base64.b64decode(value["content"])
        assert len(files) == len(lines)
        return Commit(branch, header["value"]["summary"], files)

    do_GET = do_POST = do_PUT = answer


@pytest.fixture
def hub():
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def copy(artefact, tmp_path):
    return Path(shutil.copytree(artefact, tmp_path / "model"))


@pytest.fixture
def outside(hub, tmp_path):
    """A push in a process of its own that may reach the hub: this one is offline from its start."""

    def run(model, token=TOKEN, offline="0", **options):
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": offline,
            "HF_HUB_DISABLE_XET": "1",  # the stand-in has no xet store; the client then takes LFS
            "HF_ENDPOINT": "http://127.0.0.1:9",  # where nobody listens: only what is told goes anywhere
            "HF_TOKEN": token,
        }
        options = {"endpoint": hub.url, **options}
        command = [sys.executable, "-c", CODE, str(model), REPO, json.dumps(options)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    return run


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_exactly_the_artefacts_files_arrive_in_one_commit(hub, outside, copy):
    expected = contents(copy)
    (copy / ".cache").mkdir()
    (copy / ".cache" / "notes.json").write_text("{}")
    (copy / "assay.json.writing").write_text("half")
    ran = outside(copy)
    assert ran.returncode == 0, ran.stderr
    (commit,) = hub.commits
    assert commit.files == expected
    assert commit.message == f"promptassay {load_artefact(copy).fingerprint}" and commit.branch == "main"
    assert hashlib.sha256(expected["model.safetensors"]).hexdigest() in hub.blobs  # went by LFS
    asked = [authorization for method, path, authorization in hub.seen if method != "PUT"]
    assert set(asked) == {f"Bearer {TOKEN}"}
    assert hub.visibility == "public"
    assert f"sent: {hub.url}/{REPO}/commit/" in ran.stdout and "nothing was sent" not in ran.stdout
    assert TOKEN not in ran.stdout + ran.stderr


def test_a_repeat_after_a_broken_push_completes_it_and_another_changes_nothing(hub, outside, artefact):
    hub.fail = {"/commit/": (500, {"error": "the hub fell over"})}
    ran = outside(artefact)
    assert ran.returncode == 1 and "refused the push. It answered 500: the hub fell over" in ran.stderr
    assert hub.commits == [] and len(hub.blobs) == 2  # weights, and hashes of what was seen
    hub.fail = {}
    assert outside(artefact).returncode == 0
    assert hub.tree == contents(artefact)
    assert [method for method, *_ in hub.seen].count("PUT") == 2  # both were there already
    ran = outside(artefact)
    assert ran.returncode == 0 and len(hub.commits) == 1, ran.stderr


def test_a_private_repository_a_branch_and_a_message(hub, outside, artefact):
    ran = outside(artefact, private=True, revision="trial", message="a better one")
    assert ran.returncode == 0, ran.stderr
    assert hub.visibility == "private"
    assert [(commit.branch, commit.message) for commit in hub.commits] == [("trial", "a better one")]


def test_private_refuses_a_public_repository_that_exists(hub, outside, artefact):
    hub.visibility = "public"
    ran = outside(artefact, private=True)
    assert ran.returncode == 1 and f"{REPO} exists and is public" in ran.stderr
    assert hub.commits == [] and hub.blobs == {}


def test_a_dry_run_opens_no_connection_and_needs_no_token(hub, outside, artefact, capsys):
    ran = outside(artefact, token="", dry_run=True, private=True, revision="trial")
    assert ran.returncode == 0, ran.stderr
    plan = push(artefact, REPO, dry_run=True, endpoint=f"{hub.url}/")  # offline, as this whole process
    assert hub.connections == 0 and hub.seen == []
    said = capsys.readouterr().out
    for name, content in contents(artefact).items():
        assert f"| {name} " in said and f" {len(content)} |" in said
    assert f" {sum(map(len, contents(artefact).values()))} |" in said
    assert f"repository: {REPO}, branch main, public" in said and said.endswith("nothing was sent\n")
    assert f"repository: {REPO}, branch trial, private" in ran.stdout and f"endpoint: {hub.url}\n" in ran.stdout
    assert plan.commit is None and plan.files == {name: len(x) for name, x in contents(artefact).items()}


def test_the_plan_names_what_it_says_of_this_machine(artefact, copy, built, capsys):
    (copy / "mine.parquet").write_bytes(b"rows")
    push(copy, REPO, dry_run=True)
    said = capsys.readouterr().out
    assert f"warning: assay.json says where your data or files lay: provenance.data = {built}" in said
    assert f"provenance.config.data = {built}" in said and "provenance.config.encoder.path = /" in said
    assert f"warning: run.yaml says where your data or files lay: data = {built}" in said
    assert "warning: mine.parquet is no part of an artefact" in said
    assert not [line for line in said.splitlines() if line.startswith("warning: tokenizer")]


@pytest.mark.parametrize(
    ("failing", "status", "words"),
    [
        ("/api/", 401, "does not accept the token; run `hf auth login`, or set HF_TOKEN"),
        ("/api/", 403, "does not let this token write there"),
        ("/commit/", 403, "does not let this token write there"),
        ("PUT /lfs/", 403, "does not let this token write there"),
        ("/api/", 404, "refused the push"),
        ("/validate-yaml", 400, "refuses the card: Invalid metadata in README.md"),
    ],
)
def test_a_refusal_names_the_mend_and_never_the_token(hub, outside, artefact, failing, status, words):
    what = f"no good: {TOKEN}"
    hub.fail = {failing: (status, {"error": what, "errors": [{"message": what}]})}
    ran = outside(artefact)
    assert ran.returncode == 1 and f"error: {hub.url} {words}" in ran.stderr, ran.stderr
    assert "no good: [token]" in ran.stderr and "Traceback" not in ran.stderr
    assert TOKEN not in ran.stdout + ran.stderr
    assert hub.commits == []


def test_no_token_no_network_no_hub(hub, outside, artefact):
    for options, words in [
        ({"token": ""}, "no token; run `hf auth login`, or set HF_TOKEN"),
        ({"offline": "1"}, "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set; unset it"),
        ({"endpoint": "http://127.0.0.1:9"}, "cannot be reached (ConnectError)"),
    ]:
        ran = outside(artefact, **options)
        assert ran.returncode == 1 and words in ran.stderr and TOKEN not in ran.stderr, ran.stderr
        assert hub.connections == 0
    hub.fail = {"/": (200, ["another service"])}
    assert "does not answer as a Hugging Face hub does" in outside(artefact).stderr


@pytest.mark.parametrize("name", ["pytorch_model.bin", "more/extra.PT", "modeling.py", "gate/model.pkl"])
def test_a_file_that_can_execute_is_refused(copy, name):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"")
    with pytest.raises(PushError, match=f"{name} can run code when loaded"):
        push(copy, REPO, dry_run=True)


def test_a_link_is_refused(copy, tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    (copy / "notes.txt").symlink_to(tmp_path / "diary.txt")
    with pytest.raises(PushError, match="notes.txt: links are not sent"):
        push(copy, REPO, dry_run=True)


def test_a_broken_artefact_is_refused(hub, copy):
    with (copy / "model.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ArtefactError, match="model.safetensors: differs"):
        push(copy, REPO, endpoint=hub.url)
    (copy / "assay.json").unlink()
    with pytest.raises(ArtefactError, match="is not a promptassay artefact"):
        push(copy, REPO, endpoint=hub.url)
    assert hub.connections == 0


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("# no metadata\n", "no license, library_name, pipeline_tag"),
        ("---\nlicense: [\n---\n", "while parsing"),
        ("---\n- a list\n---\n", "should be a dict"),
        ("---\nlicense: mit\nlibrary_name: transformers\n---\n", "no pipeline_tag"),
        ("---\nlicense: mit\nbase_model: /srv/me/encoder\n---\n", "Repo id must"),
        ("---\nlicense: mit\nmodel-index: [{name: x}]\n---\n", "Invalid `model_index`"),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_refused(copy, card, words):
    (copy / "README.md").write_text(card)
    with pytest.raises(PushError, match="README.md: its metadata are not valid") as raised:
        push(copy, REPO, dry_run=True)
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repo": "name"}, "must be OWNER/NAME"),
        ({"repo": "a/b/c"}, "--repo"),
        ({"repo": "owner/na me"}, "--repo"),
        ({"endpoint": "example.org"}, "must be http"),
        ({"endpoint": "https://me:password@example.org"}, "without a user or password"),
    ],
)
def test_wrong_use(artefact, options, words):
    with pytest.raises(PushError, match=words) as raised:
        push(artefact, **{"repo": REPO, "dry_run": True, **options})
    assert "me:password" not in str(raised.value)


def test_the_artefacts_card_is_one_of_the_hub(artefact):
    card = ModelCard.load(artefact / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    assert card.data.pipeline_tag == "text-classification" and "promptassay" in card.data.tags
    bases = [card.data.base_model] if isinstance(card.data.base_model, str) else card.data.base_model or []
    for base in bases:
        validate_repo_id(base)
    again = ModelCard(str(card))  # what the library writes is what it read
    assert again.data.to_dict() == card.data.to_dict() and again.text == card.text
    assert card.text.lstrip().startswith("# ")

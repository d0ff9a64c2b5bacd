"""What each request to the test hub gets: one function per kind, found by method and path."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote

from hub.state import Commit, Entry, Repo, State, User, git_oid, is_large, large, may_read, may_write, small


@dataclass
class Request:
    method: str
    path: str  # without the query
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: bytes
    hub: str  # where the hub is
    storage: str  # where large objects are: another origin, to which no token may go

    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply = Reply(status, json.dumps({"error": message}).encode(), headers)


def reply_json(value: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def user_of(state: State, request: Request) -> User | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    user = state.users.get(header.removeprefix("Bearer "))
    if user is None:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return user


def repo_of(state: State, request: Request, repo_id: str) -> Repo:
    """As on the Hub, one who may not see a repository is not told whether it exists."""
    user = user_of(state, request)
    repo = state.repos.get(repo_id)
    if repo is None or not may_read(repo, user):
        raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
    return repo


def commit_of(repo: Repo, revision: str) -> Commit:
    commit = repo.find(unquote(revision))
    if commit is None:
        raise Refusal(404, f"Invalid rev id: {unquote(revision)}", "RevisionNotFound")
    return commit


def check_write(state: State, request: Request, repo_id: str) -> None:
    user = user_of(state, request)
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    if not may_write(repo_id, user):
        raise Refusal(403, "You don't have the rights to write to this repository")


def whoami(state: State, request: Request) -> Reply:
    user = user_of(state, request)
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    return reply_json({"type": "user", "name": user.name, "orgs": [{"name": name} for name in user.organizations]})


def create_repo(state: State, request: Request) -> Reply:
    asked = request.json()
    user = user_of(state, request)
    repo_id = f"{asked['organization'] or (user.name if user else '')}/{asked['name']}"
    check_write(state, request, repo_id)
    answer = {"url": f"{request.hub}/{repo_id}", "name": repo_id}
    if repo_id in state.repos:
        return reply_json(answer | {"error": "You already created this model repo"}, 409)
    state.repos[repo_id] = Repo(repo_id, private=asked.get("visibility") == "private")
    return reply_json(answer)


def create_branch(state: State, request: Request, repo_id: str, branch: str) -> Reply:
    repo = repo_of(state, request, repo_id)
    check_write(state, request, repo_id)
    name = unquote(branch)
    if name in repo.references:
        raise Refusal(409, f"Reference already exists: {name}")
    repo.references[name] = repo.references["main"]
    return reply_json({})


def list_references(state: State, request: Request, repo_id: str) -> Reply:
    repo = repo_of(state, request, repo_id)
    pulls = repo.pull_requests()
    branches = [name for name in repo.references if name not in pulls]

    def items(names: list[str], prefix: str) -> list[dict]:
        return [{"name": name, "ref": prefix + name, "targetCommit": repo.references[name]} for name in names]

    answer = {"branches": items(branches, "refs/heads/"), "tags": [], "converts": []}
    return reply_json(answer | ({"pullRequests": items(pulls, "")} if "include_prs" in request.query else {}))


def check_access(state: State, request: Request, repo_id: str, write: str | None) -> Reply:
    repo = repo_of(state, request, repo_id)
    if write:
        check_write(state, request, repo.id)
    return reply_json({})


def validate_yaml(_state: State, request: Request) -> Reply:
    bad = "INVALID" in request.json()["content"]
    return reply_json({"errors": [{"message": "bad"}] if bad else [], "warnings": []}, 400 if bad else 200)


def model_info(state: State, request: Request, repo_id: str, revision: str = "main") -> Reply:
    repo = repo_of(state, request, repo_id)
    commit = commit_of(repo, revision)
    siblings = [{"rfilename": path} for path in sorted(commit.files)]
    about = {"id": repo.id, "modelId": repo.id, "sha": commit.oid, "private": repo.private, "siblings": siblings}
    return reply_json(about | {"gated": "manual" if repo.gated else False, "tags": []})


def describe(path: str, entry: Entry) -> dict:
    about = {"type": "file", "path": path, "oid": entry.oid, "size": entry.size}
    lfs = {"lfs": {"oid": entry.sha256, "size": entry.size, "pointerSize": 130}} if entry.sha256 else {}
    return about | lfs


def list_tree(state: State, request: Request, repo_id: str, revision: str) -> Reply:
    commit = commit_of(repo_of(state, request, repo_id), revision)
    return reply_json([describe(path, entry) for path, entry in sorted(commit.files.items())])


def paths_info(state: State, request: Request, repo_id: str, revision: str) -> Reply:
    commit = commit_of(repo_of(state, request, repo_id), revision)
    paths = parse_qs(request.body.decode())["paths"]
    return reply_json([describe(path, commit.files[path]) for path in paths if path in commit.files])


def preupload(state: State, request: Request, repo_id: str, revision: str) -> Reply:
    repo = repo_of(state, request, repo_id)
    if "create_pr" not in request.query:
        check_write(state, request, repo_id)
    present = commit_of(repo, revision).files
    answers = []
    for file in request.json()["files"]:
        entry = present.get(file["path"])
        answer = {"path": file["path"], "shouldIgnore": file["path"].startswith("ignored")}
        answer["uploadMode"] = "lfs" if is_large(file["path"], file["size"]) else "regular"
        answers.append(answer | ({"oid": entry.sha256 or entry.oid} if entry else {}))
    return reply_json({"files": answers})


def lfs_batch(state: State, request: Request, repo_id: str) -> Reply:
    repo_of(state, request, repo_id)
    objects = []
    for item in request.json()["objects"]:
        answer = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in state.objects:
            upload = {"href": f"{request.storage}/storage/{item['oid']}?signature=abc", "header": {}}
            verify = {"href": f"{request.hub}/{repo_id}.git/info/lfs/verify"}
            answer["actions"] = {"upload": upload, "verify": verify}
        objects.append(answer)
    return reply_json({"transfer": "basic", "objects": objects})


def lfs_verify(state: State, request: Request, _repo_id: str) -> Reply:
    asked = request.json()
    if len(state.objects.get(asked["oid"], b"")) != asked["size"]:
        raise Refusal(404, "Object does not exist")
    return reply_json({})


def make_commit(state: State, request: Request, repo_id: str, revision: str) -> Reply:
    repo = repo_of(state, request, repo_id)
    lines = [json.loads(line) for line in request.body.splitlines()]
    header = lines[0]["value"]
    pull = "create_pr" in request.query
    if user_of(state, request) is None or not pull:
        check_write(state, request, repo_id)
    head = commit_of(repo, revision)
    if not pull and header.get("parentCommit", head.oid) != head.oid:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = small(base64.b64decode(value["content"]))
        elif line["key"] == "lfsFile":
            if value["oid"] not in state.objects:
                raise Refusal(400, f"Your push was rejected: LFS object {value['oid']} is missing")
            files[value["path"]] = large(value["oid"], value["size"])
        elif line["key"] == "deletedFile":
            del files[value["path"]]
        else:
            raise Refusal(400, f"unknown key {line['key']}")
    reference = f"refs/pr/{len(repo.pull_requests()) + 1}" if pull else unquote(revision)
    commit = repo.commit(reference, files, header["summary"], header["description"], parent=head.oid)
    answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{request.hub}/{repo_id}/commit/{commit.oid}"}
    number = reference.rpartition("/")[2]
    link = {"pullRequestUrl": f"{request.hub}/{repo_id}/discussions/{number}"} if pull else {}
    return reply_json(answer | link | {"hookOutput": ""})


def download(state: State, request: Request, repo_id: str, revision: str, path: str) -> Reply:
    repo = repo_of(state, request, repo_id)
    user = user_of(state, request)
    if repo.gated and not (user and may_write(repo_id, user)):
        raise Refusal(403 if user else 401, f"Access to model {repo_id} is restricted", "GatedRepo")
    commit = commit_of(repo, revision)
    entry = commit.files.get(unquote(path))
    headers = {"X-Repo-Commit": commit.oid}
    if entry is None:
        refusal = Refusal(404, "Entry not found", "EntryNotFound")
        refusal.reply.headers.update(headers)
        raise refusal
    if entry.sha256 is None:
        return Reply(200, entry.content, headers | {"ETag": f'"{git_oid(entry.content)}"'})
    headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    location = f"{request.storage}/storage/{entry.sha256}?name={quote(path)}"
    return Reply(302, b"", headers | {"Location": location})


def put_object(state: State, request: Request, oid: str) -> Reply:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, "BadDigest")
    state.objects[oid] = request.body
    state.uploads.append(oid)
    return Reply(200, b"", {"ETag": f'"{oid}"'})


def get_object(state: State, request: Request, oid: str) -> Reply:
    content = state.objects[oid]
    match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if not match:
        return Reply(200, content, {"ETag": f'"{oid}"'})
    begin = int(match[1])
    span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
    return Reply(206, content[begin:], {"ETag": f'"{oid}"', "Content-Range": span})


REPO = r"([^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/repos/create", create_repo),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("POST", rf"/api/models/{REPO}/branch/([^/]+)", create_branch),
    ("GET", rf"/api/models/{REPO}/auth-check(/write)?", check_access),
    ("GET", rf"/api/models/{REPO}/refs", list_references),
    ("GET", rf"/api/models/{REPO}/revision/([^/]+)", model_info),
    ("GET", rf"/api/models/{REPO}/tree/([^/]+)", list_tree),
    ("GET", rf"/api/models/{REPO}", model_info),
    ("POST", rf"/api/models/{REPO}/paths-info/([^/]+)", paths_info),
    ("POST", rf"/api/models/{REPO}/preupload/([^/]+)", preupload),
    ("POST", rf"/api/models/{REPO}/commit/([^/]+)", make_commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", rf"/{REPO}\.git/info/lfs/verify", lfs_verify),
    ("GET|HEAD", rf"/{REPO}/resolve/([^/]+)/(.+)", download),
    ("PUT", r"/storage/([0-9a-f]{64})", put_object),
    ("GET", r"/storage/([0-9a-f]{64})", get_object),
]


def answer(state: State, request: Request) -> Reply:
    if request.path.startswith("/storage/") and "authorization" in request.headers:
        return Reply(400, b"the token reached the storage host")
    for method, pattern, function in ROUTES:
        match = re.fullmatch(pattern, request.path)
        if match and request.method in method.split("|"):
            try:
                return function(state, request, *match.groups())
            except Refusal as refusal:
                return refusal.reply
    return Reply(404, f"the test hub has no {request.method} {request.path}".encode())

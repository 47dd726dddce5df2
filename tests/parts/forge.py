"""A stand-in for a forge: payloads as its documentation shows them, signed, and an API that takes statuses."""

import base64
import hashlib
import hmac
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

ZEROS = "0" * 40
SECRET = b"a-webhook-secret-of-the-test"
TOKEN = "forge-token-of-the-test"


def commit_id(number: int) -> str:
    """A commit that no repository has."""
    return hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()


def push(
    forge: str,
    url: str,
    *,
    ref: str = "refs/heads/main",
    after: str = "",
    before: str = "",
    message: str = "a change",
    at: int | None = None,
) -> dict[str, Any]:
    """A push's payload."""
    after, before = after or commit_id(1), before or commit_id(0)
    deleted = after == ZEROS
    commit = {"id": after, "message": message, "timestamp": "2026-01-02T03:04:05Z", "author": {"name": "A"}}
    if forge == "gitlab":
        return {
            "object_kind": "tag_push" if ref.startswith("refs/tags/") else "push",
            "event_name": "push",
            "before": before,
            "after": after,
            "ref": ref,
            "checkout_sha": None if deleted else after,
            "user_username": "a",
            "project_id": 15,
            "project": {
                "id": 15,
                "name": "App",
                "web_url": url.removesuffix(".git"),
                "git_ssh_url": ssh(url),
                "git_http_url": url,
                "path_with_namespace": path(url),
                "default_branch": "main",
            },
            "commits": [] if deleted else [commit],
            "total_commits_count": 0 if deleted else 1,
        }
    value: dict[str, Any] = {
        "ref": ref,
        "before": before,
        "after": after,
        "created": False,
        "deleted": deleted,
        "forced": False,
        "compare": f"{url.removesuffix('.git')}/compare/{before[:12]}...{after[:12]}",
        "commits": [] if deleted else [commit],
        "head_commit": None if deleted else commit,
        "repository": repository(url),
        "pusher": {"name": "a", "email": "a@example.org"},
        "sender": {"login": "a", "id": 1},
    }
    if at is not None:
        value["repository"]["pushed_at"] = at
    return value


def repository(url: str, *, id: int = 15) -> dict[str, Any]:
    """As GitHub and Gitea show one."""
    return {
        "id": id,
        "name": path(url).rpartition("/")[2],
        "full_name": path(url),
        "private": False,
        "html_url": url.removesuffix(".git"),
        "clone_url": url,
        "ssh_url": ssh(url),
        "git_url": f"git://{url.partition('://')[2]}",
        "default_branch": "main",
    }


def pull_request(
    forge: str,
    url: str,
    *,
    number: int = 7,
    action: str = "opened",
    head: str = "",
    into: str = "main",
    fork: bool = False,
    message: str = "a change",
) -> dict[str, Any]:
    """A pull (merge) request's payload."""
    head = head or commit_id(1)
    if forge == "gitlab":
        words = {"opened": "open", "synchronize": "update", "reopened": "reopen", "closed": "close"}
        attributes = {
            "id": 99,
            "iid": number,
            "source_branch": "change",
            "target_branch": into,
            "source_project_id": 14 if fork else 15,
            "target_project_id": 15,
            "action": words.get(action, action),
            "last_commit": {"id": head, "message": message, "url": f"{url}/commit/{head}"},
            "updated_at": "2026-01-02 03:04:05 UTC",
            **({"oldrev": commit_id(0)} if action == "synchronize" else {}),
        }
        project = push(forge, url)["project"]
        return {"object_kind": "merge_request", "object_attributes": attributes, "project": project, "labels": []}
    if forge == "gitea" and action == "synchronize":
        action = "synchronized"
    elsewhere = url.replace("/team/", "/stranger/")
    return {
        "action": action,
        "number": number,
        "pull_request": {
            "id": 99,
            "number": number,
            "state": "closed" if action == "closed" else "open",
            "title": "A change",
            "updated_at": None if forge == "gitea" else "2026-01-02T03:04:05Z",
            "head": {
                "ref": "change",
                "sha": head,
                "repo": repository(elsewhere, id=16) if fork else repository(url),
            },
            "base": {"ref": into, "sha": commit_id(0), "repo": repository(url)},
        },
        "repository": repository(url),
        "sender": {"login": "a", "id": 1},
    }


EVENTS = {
    "gitlab": {"push": "Push Hook", "tag": "Tag Push Hook", "pull_request": "Merge Request Hook"},
    "github": {"push": "push", "tag": "push", "pull_request": "pull_request"},
    "gitea": {"push": "push", "tag": "push", "pull_request": "pull_request"},
}


def headers(
    forge: str,
    body: bytes,
    *,
    event: str = "push",
    secret: bytes = SECRET,
    delivery: str = "",
    now: float | None = None,
) -> dict[str, str]:
    """As the forge sends them, lower case. With `now` GitLab signs (its signing token), else it shows its token."""
    delivery = delivery or str(uuid.uuid4())
    name = EVENTS[forge].get(event, event)
    found = {"content-type": "application/json", "user-agent": f"{forge}-hook"}
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    if forge == "github":
        found |= {
            "x-github-event": name,
            "x-github-delivery": delivery,
            "x-github-hook-id": "292430182",
            "x-hub-signature-256": f"sha256={digest}",
        }
    elif forge == "gitea":
        found |= {
            "x-gitea-event": name,
            "x-github-event": name,
            "x-gitea-delivery": delivery,
            "x-gitea-signature": digest,
        }
    elif now is None:
        found |= {"x-gitlab-event": name, "x-gitlab-event-uuid": delivery, "x-gitlab-token": secret.decode()}
    else:
        signed = f"{delivery}.{int(now)}.".encode() + body
        signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        found |= {
            "x-gitlab-event": name,
            "webhook-id": delivery,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": f"v1,{signature}",
        }
    return found


def path(url: str) -> str:
    return url.partition("://")[2].partition("/")[2].removesuffix(".git")


def ssh(url: str) -> str:
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    return f"git@{host}:{path(url)}.git"


class ForgeApi:
    """Takes commit statuses and checks their shape. `script`: answers (status, headers) to give before it takes any."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.wrong: list[str] = []
        self.script: list[tuple[int, dict[str, str]]] = []
        self.asked = 0
        self.arrived = threading.Event()
        self.answering = threading.Event()
        """Cleared: what was taken is not answered yet."""
        self.answering.set()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # the farm was ended in the middle of it
                status, extra = api.answer(self.path, dict(self.headers.items()), body)
                api.answering.wait(30)
                text = b'{"message":"as the test wants"}'
                self.send_response(status)
                for name, value in {"content-length": str(len(text)), **extra}.items():
                    self.send_header(name, value)
                with suppress(OSError):
                    self.end_headers()
                    self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def states(self, commit: str, context: str | None = None) -> list[str]:
        """What was taken of this commit, in order."""
        return [each["state"] for each in self.taken if each["commit"] == commit and context in (None, each["context"])]

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        self.asked += 1
        found = {name.lower(): value for name, value in headers.items()}
        value = json.loads(body)
        parts = path.strip("/").split("/")
        if parts[0] == "projects":
            right = found.get("private-token") == TOKEN and parts[2] == "statuses"
            known = {"pending", "running", "success", "failed", "canceled", "skipped"}
            project, context = unquote(parts[1]), value.get("name")
        else:
            right = found.get("authorization") in (f"Bearer {TOKEN}", f"token {TOKEN}") and parts[-2] == "statuses"
            known = {"pending", "success", "failure", "error"}
            project, context = "/".join(parts[1:3]), value.get("context")
        if not right:
            self.wrong.append(f"{path}: not authorized, or not the address of a status")
            return 401, {}
        if self.script:
            return self.script.pop(0)
        if value["state"] not in known or len(value["description"]) > 140 or not context:
            self.wrong.append(f"{path}: {value}")
            return 422, {}
        self.taken.append({**value, "commit": parts[-1], "project": project, "context": context})
        self.arrived.set()
        return 201, {}


@contextmanager
def forge_api() -> Iterator[ForgeApi]:
    """An API on loopback."""
    api = ForgeApi()
    thread = threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.server.shutdown()
        api.server.server_close()
        thread.join(5)

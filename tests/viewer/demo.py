"""A farm with something to see on every page: what the screenshots show."""

import json
import urllib.request
from typing import Any

from tests.parts.whole_farm import WholeFarm

ESC = "\x1b"
HOST = "https://git.example"


def ask(farm: WholeFarm, path: str, body: Any = None, *, method: str | None = None) -> Any:
    """The farm's answer to a request with its token."""
    headers = {"authorization": f"Bearer {(farm.state / 'token').read_text().strip()}"}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    request = urllib.request.Request(f"{farm.url}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=40) as answer:
        return json.load(answer)


def submit(farm: WholeFarm, repository: str, *actions: dict[str, Any], **spec: Any) -> str:
    """A job that follows a script; answers its id."""
    args = {"SCRIPT": json.dumps(list(actions))} if actions else {}
    return str(ask(farm, "/api/v1/jobs", {"repository": f"{HOST}/{repository}.git", "build_args": args} | spec)["id"])


def step(identity: str, name: str, *more: dict[str, Any], **first: Any) -> list[dict[str, Any]]:
    """Actions of one step."""
    return [{"step": identity, "name": name, **first}, *more]


def talk(text: str, lines: int = 1, **more: Any) -> dict[str, Any]:
    """An action that prints."""
    return {"lines": lines, "line": text, **more}


def good_build(pace: float = 1.0) -> list[dict[str, Any]]:
    """Two stages beside each other, then the last one."""
    web = [
        *step("web1", "[web 1/4] FROM docker.io/library/node:22-alpine", cached=True),
        *step("web2", "[web 2/4] COPY package.json package-lock.json ./", cached=True),
        *step("web3", "[web 3/4] RUN npm ci", talk("npm fetched package {n} of 41", 41, seconds=0.25 * pace)),
        *step(
            "web4",
            "[web 4/4] RUN npm run build",
            talk(f"{ESC}[36mvite v6.0.3{ESC}[0m building for production...", seconds=0.1 * pace),
            talk(f"{ESC}[2mdist/assets/{ESC}[0m{ESC}[32mindex-{{n}}.js{ESC}[0m   {ESC}[1m41.20 kB{ESC}[0m", 12),
            talk(f"{ESC}[33mwarning:{ESC}[0m some chunks are larger than 500 kB after minification"),
            talk(f"{ESC}[32m✓ built in 1.83s{ESC}[0m", seconds=0.3 * pace),
        ),
    ]
    server = [
        *step("srv1", "[server 1/3] FROM docker.io/library/golang:1.24", cached=True),
        *step("srv2", "[server 2/3] COPY . .", seconds=0.08 * pace),
        *step(
            "srv3",
            "[server 3/3] RUN go test ./... && go build -o /shop ./cmd/shop",
            talk("go: downloading example.org/pkg{n} v1.{n}.0", 9, seconds=0.1 * pace),
            talk(f"{ESC}[32mok{ESC}[0m  	shop/internal/cart	0.412s", seconds=0.3 * pace),
            talk(f"{ESC}[32mok{ESC}[0m  	shop/internal/checkout	1.093s", seconds=0.3 * pace),
        ),
    ]
    return [
        *step("ctx", "[internal] load build context", {"progress": [48211, 48211]}),
        {"beside": [web, server]},
        *step("fin1", "[final 1/2] COPY --from=web /app/dist /srv", seconds=0.1 * pace),
        *step("fin2", "[final 2/2] COPY --from=server /shop /usr/local/bin/shop", seconds=0.1 * pace),
        *step("exp", "exporting to image", talk("writing image", seconds=0.15 * pace)),
    ]


def bad_build() -> list[dict[str, Any]]:
    """A test that fails."""
    return [
        *step("1", "[1/4] FROM docker.io/library/python:3.13-slim", cached=True),
        *step("2", "[2/4] RUN pip install -r requirements.txt", talk("Collecting dependency-{n}", 30, seconds=0.2)),
        *step(
            "3",
            "[3/4] RUN pytest -q",
            talk("................................................ [{n}0%]", 7, seconds=0.2),
            talk(f"{ESC}[31mFAILED{ESC}[0m tests/test_ledger.py::{ESC}[1mtest_rounding{ESC}[0m", seconds=0.1),
            talk("E       AssertionError: assert Decimal('10.01') == Decimal('10.00')"),
            talk(f"{ESC}[31m1 failed{ESC}[0m, {ESC}[32m212 passed{ESC}[0m in 0.52s", stream="stderr"),
            {"exit": 1},
        ),
    ]


def deployment(name: str, *words: str, replicas: int = 1) -> dict[str, Any]:
    """What is asked for: a scripted container that talks for a while and stays."""
    run = {"name": name, "command": list(words), "replicas": replicas, "env": {"LOG_LEVEL": "info"}}
    return {"image": f"registry.example/{name}:2025.11", "run": run}


def furnish(farm: WholeFarm) -> dict[str, str]:
    """Jobs and deployments of every kind; answers the ids and names that the pictures are of."""
    good = submit(farm, "acme/shop", *good_build(), ref="main", image="registry.example/acme/shop")
    bad = submit(farm, "acme/ledger", *bad_build(), ref="feature/rounding")
    for name in ("acme/search", "acme/mailer", "platform/gateway", "platform/auth"):
        submit(farm, name, *step("1", "[1/1] RUN make", talk("compiling {n}", 20)), ref="main")
    submit(farm, "platform/firmware", ref="v2.4.1", pool="arm")
    for each in (good, bad):
        farm.wait_for(each, "succeeded", "failed", seconds=40)
    words = [w for n in range(1, 8) for w in ("print", f"10:4{n}:07 GET /cart/{n}82 200 {n * 3} ms", "sleep", "0.05")]
    ask(farm, "/api/v1/deployments", deployment("shop", *words, "listen", replicas=2))
    ask(farm, "/api/v1/deployments", deployment("mailer", "print", "listening on :8025", "listen"))
    running = submit(farm, "acme/shop", *good_build(40), ref="checkout-v2", image="registry.example/acme/shop")
    submit(farm, "platform/gateway", *step("1", "[1/1] RUN make", talk("compiling {n}", 20), {"seconds": 600}))
    return {"good": good, "bad": bad, "running": running, "deployment": "shop"}

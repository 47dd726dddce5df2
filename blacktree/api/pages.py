"""The few static pages of the door: what this is, and how to come in."""

import base64
import hashlib

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

# What stands behind the `#` (a job, a line of its log) never reaches the farm: it is kept for the viewer (back.js).
# By a link of another site's page a browser comes without its SameSite=Strict cookie: whoever has one goes on.
_SCRIPT = """
const place = location.hash;
if (/^#\\/.{1,2000}$/.test(place)) {
  sessionStorage.setItem("back", place);
  localStorage.setItem("back", JSON.stringify([place, Date.now()]));
}
if (location.pathname === "/") {
  const known = (answer) => { if (answer.ok) location.replace("/login?again" + place); };
  // A browser drops what is under way when its network changes.
  const ask = (tries) => fetch("/api/v1/tokens/self").then(known, () => tries && setTimeout(ask, 400, tries - 1));
  ask(5);
}
"""
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
# This script and no other.
LOGIN_POLICY = f"{POLICY}; script-src 'sha256-{_DIGEST}'; connect-src 'self'"

_FRAME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Blacktree</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem; color: #222 }
code, input { font-family: ui-monospace, monospace } td { padding: .1rem 1rem .1rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) { body { background: #151515; color: #ddd } a { color: #8ab4f8 } }
</style>
<script>SCRIPT</script>
<h1>Blacktree</h1>
CONTENT
</html>
"""

_LOGIN = """
<p>NOTE</p>
<form method="post" action="/login">
<p><label>Token <input name="token" type="password" autocomplete="off" size="40" autofocus required></label>
<button>Come in</button>
</form>
<p>The token is in the file that the farm named when it started (<code>STATE/token</code>).</p>
"""

_FRAME = _FRAME.replace("SCRIPT", _SCRIPT)
LOGIN = _FRAME.replace("CONTENT", _LOGIN.replace("NOTE", "This farm asks who you are.")).encode()
LOGIN_FAILED = _FRAME.replace(
    "CONTENT", _LOGIN.replace("NOTE", "That did not work: a login link works once, for ten minutes.")
).encode()

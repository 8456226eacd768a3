"""A certified OpenID provider in a process of its own: real tokens, keys that turn, a real death.

What it hands out is in `scripts/support/issuer/server.mjs`; marked `issuer`, as it takes Node.js.
The proofs and forgeries that no honest issuer makes are made here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from processes import SUPPORT, Process, ProcessError

SERVER = SUPPORT / "issuer" / "server.mjs"
MODULES = Path(sys.prefix) / "issuer"  # where `need_env issuer` puts them
SECRET = "a-secret-of-the-tests-0123456789"


class LiveIssuer:
    """A running oidc-provider. A context manager that stops it.

    `issuer` is its URL, which stays the same when it is started again; its keys do not.
    """

    def __init__(self) -> None:
        self._port = "0"
        self.start()

    def start(self) -> None:
        """Start, or start again at the same address with new keys."""
        node = shutil.which("node")
        if node is None or not (MODULES / "node_modules").is_dir():
            missing = "Node.js" if node is None else MODULES
            raise AssertionError(f"{missing} is missing: see scripts/test --help")
        self.process = Process([node, SERVER, MODULES, self._port])
        try:
            self.issuer = self.process.wait_line(r"issuer at (\S+)")[1]
            self._control = self.process.wait_line(r"its keys are turned at (\S+)")[1]
        except ProcessError:
            self.process.kill9()
            raise
        self._port = self.issuer.rpartition(":")[2]

    def kill9(self) -> None:
        """End it as a power cut would."""
        self.process.kill9()

    def publish_key(self) -> None:
        """Show a new ES256 key beside the old one, which goes on signing."""
        httpx.post(f"{self._control}/publish", trust_env=False).raise_for_status()

    def sign_with_new_key(self) -> None:
        """Sign with the key published last; with one nobody has seen, if none was."""
        httpx.post(f"{self._control}/sign", trust_env=False).raise_for_status()

    def withdraw_old_keys(self) -> None:
        """Show only the ES256 key that signs."""
        httpx.post(f"{self._control}/withdraw", trust_env=False).raise_for_status()

    def asked(self, path: str) -> int:
        """How often `path` was asked for since it started, such as /jwks."""
        counts = httpx.get(f"{self._control}/counts", trust_env=False).json()
        return int(counts.get(path, 0))

    def client(self, name: str = "agent-7") -> httpx.AsyncClient:
        """An HTTP client of the issuer that signs in as the OAuth client `name`."""
        return httpx.AsyncClient(
            base_url=self.issuer, auth=(name, SECRET), trust_env=False, timeout=30
        )

    async def token(
        self,
        name: str = "agent-7",
        resource: str = "urn:models:es256",
        *,
        proof: str = "",
        http: httpx.AsyncClient | None = None,
    ) -> str:
        """An access token by client_credentials (RFC 6749 section 4.4) for `resource` (RFC 8707).

        With a DPoP `proof` for the token endpoint it is bound to that key. `http` is a `client`
        to use again.
        """
        if http is None:
            async with self.client(name) as http:
                return await self.token(name, resource, proof=proof, http=http)
        answer = await http.post(
            "/token",
            data={
                "grant_type": "client_credentials",
                "scope": "inference",
                "resource": resource,
            },
            headers={"DPoP": proof} if proof else {},
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def revoke(self, token: str, name: str = "agent-7") -> None:
        """Revoke `token` as the client it was given to (RFC 7009)."""
        async with self.client(name) as http:
            answer = await http.post("/token/revocation", data={"token": token})
        assert answer.status_code == 200, answer.text

    async def id_token(self, client_id: str = "models") -> str:
        """An ID token for `client_id`, by the authorization code flow and the issuer's own pages.

        Its `aud` is `client_id`, which is called as the gate's audience is.
        """
        verifier = uuid.uuid4().hex * 2
        query = {
            "client_id": client_id,
            "response_type": "code",
            "scope": "openid",
            "redirect_uri": "http://127.0.0.1/signed-in",
            "code_challenge": _base64url(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        async with httpx.AsyncClient(base_url=self.issuer, trust_env=False) as browser:
            answer = await browser.get("/auth", params=query)
            while not (to := answer.headers.get("location", "")).startswith(query["redirect_uri"]):
                if to:
                    answer = await browser.get(to)
                    continue
                form = re.search(r'action="([^"]+)"', answer.text)
                prompt = re.search(r'name="prompt" value="([^"]+)"', answer.text)
                assert form, answer.text
                assert prompt, answer.text
                fields = {"prompt": prompt[1], "login": "agent-7", "password": "any"}
                answer = await browser.post(form[1], data=fields)
        async with self.client(client_id) as http:
            answer = await http.post(
                "/token",
                data={
                    "grant_type": "authorization_code",
                    "code": parse_qs(urlsplit(to).query)["code"][0],
                    "redirect_uri": query["redirect_uri"],
                    "code_verifier": verifier,
                },
            )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id_token"])

    def forge(self, kid: str) -> str:
        """A token as the issuer makes them for agent-7, but signed by a stranger's key `kid`."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": "models",
            "sub": "agent-7",
            "client_id": "agent-7",
            "scope": "inference",
            "iat": now,
            "exp": now + 600,
            "jti": uuid.uuid4().hex,
        }
        headers = {"kid": kid, "typ": "at+jwt"}
        return jwt.encode(claims, _STRANGER, algorithm="ES256", headers=headers)

    def stop(self) -> None:
        self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class ProofKey:
    """A client's key, with which it proves possession (RFC 9449)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._jwk = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)

    def prove(self, method: str, url: str, token: str = "", **claims: Any) -> str:
        """A fresh proof for one request, with `token` where it goes to a resource."""
        payload = {
            "jti": uuid.uuid4().hex,
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
            **({"ath": _base64url(hashlib.sha256(token.encode()).digest())} if token else {}),
            **claims,
        }
        headers = {"typ": "dpop+jwt", "jwk": self._jwk}
        return jwt.encode(payload, self._key, algorithm="ES256", headers=headers)


def kid_of(token: str) -> str:
    """The key that `token` says it is signed with."""
    return str(jwt.get_unverified_header(token)["kid"])


def claims_of(token: str) -> dict[str, Any]:
    """The claims of `token`, not verified."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return claims


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


_STRANGER = ec.generate_private_key(ec.SECP256R1())

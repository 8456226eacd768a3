import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from mitmgate.core.ledger import RecorderFile, Signer
from mitmgate.core.rules import RuleError, load


def pem(key, password=None):
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def read(tmp_path, text):
    path = tmp_path / "recorder.yaml"
    path.write_text("schema: 1\n" + text)
    return load(path, RecorderFile).file


def test_defaults(tmp_path):
    file = read(tmp_path, "")
    assert (file.directory, file.prompts, file.fsync) == ("recordings", "exact", "interval")
    assert (file.rotate.size, file.rotate.age) == (256 << 20, 86400.0)
    assert (file.retain.size, file.retain.age, file.scrub_query) == (None, None, ())
    assert (file.scrub, file.sign, file.refuses_unrecorded) == ((), None, True)


def test_all_given(tmp_path):
    (tmp_path / "key.pem").write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    file = read(
        tmp_path,
        "directory: audit/flows\nrotate: {size: 1m, age: 1h}\nprompts: masked\nrequired: true\n"
        "retain: {age: 90d, size: 50g}\nscrub_query: [Ticket]\n"
        "scrub: [X-Internal-User]\nsign: {key: '${file:key.pem}'}\nfsync: always\n",
    )
    assert (file.directory, file.prompts, file.fsync) == ("audit/flows", "masked", "always")
    assert (file.rotate.size, file.rotate.age) == (1 << 20, 3600.0)
    assert (file.retain.size, file.retain.age) == (50 << 30, 90 * 86400.0)
    assert (file.scrub, file.scrub_query) == (("x-internal-user",), ("ticket",))
    assert len(file.sign.signer().key_id) == 16


def test_the_headers_that_name_a_session(tmp_path):
    assert "x-session-id" in read(tmp_path, "").sessions
    assert read(tmp_path, "sessions: [X-Run, session_id]").sessions == ("x-run", "session_id")
    assert read(tmp_path, "sessions: []").sessions == ()
    for name in ("Authorization", "cookie", "x-api-key", "DPoP"):
        with pytest.raises(RuleError, match="carries credentials"):
            read(tmp_path, f"sessions: [{name}]")
    with pytest.raises(RuleError, match="no header name"):
        read(tmp_path, "sessions: ['a b']")


def test_the_only_way_to_go_without(tmp_path):
    assert not read(tmp_path, "unsafe_required: false").refuses_unrecorded
    with pytest.raises(RuleError, match="write unsafe_required: false"):
        read(tmp_path, "required: false")
    with pytest.raises(RuleError, match="required"):
        read(tmp_path, "required: false\nunsafe_required: false")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("directory: /var/log", "directory: is a plain path"),
        ("directory: ../out", "directory: is a plain path"),
        ("directory: a/../../b", "directory: is a plain path"),
        ("directory: ~/x", "directory: is a plain path"),
        ("directory: ''", "directory: is a plain path"),
        ("directory: .", "directory: is a plain path"),
        ("directory: 'a\\b'", "directory: is a plain path"),
        ("rotate: {size: 0}", "rotate.size"),
        ("rotate: {size: 0k}", "rotate.size"),
        ("rotate: {age: 0s}", "rotate.age"),
        ("rotate: {files: 3}", "rotate.files: unknown key"),
        ("retain: {age: 0s}", "retain.age"),
        ("retain: {size: 0}", "retain.size"),
        ("retain: {files: 3}", "retain.files: unknown key"),
        ("retain: 90d", "retain"),
        ("scrub_query: ['a=b']", "scrub_query[0]: is no name"),
        ("scrub_query: [5]", "scrub_query[0]: is no name"),
        ("prompts: none", "prompts"),
        ("fsync: sometimes", "fsync"),
        ("scrub: ['X Y']", "scrub[0]: is no header name"),
        ("scrub: [5]", "scrub[0]: is no header name"),
        ("sign: {}", "sign.key: is missing"),
        ("sign: {key: '${file:nowhere.pem}'}", "nowhere.pem"),
        ("sign: {key: '${file:rsa.pem}'}", "sign.key: not an Ed25519 key"),
        ("sign: {key: '${file:locked.pem}'}", "sign.key: not a private key"),
        ("sign: {key: secret-words}", "sign.key: not a private key"),
    ],
)
def test_refused(tmp_path, text, message):
    (tmp_path / "rsa.pem").write_bytes(pem(rsa.generate_private_key(65537, 2048)))
    (tmp_path / "locked.pem").write_bytes(pem(ed25519.Ed25519PrivateKey.generate(), b"pw"))
    with pytest.raises(RuleError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert message in f"{problem.where}: {problem.message}"
    assert problem.line == 2
    assert "secret-words" not in str(problem)


def test_a_signer_never_shows_the_key():
    with pytest.raises(ValueError, match="PEM") as caught:
        Signer.from_pem("hush-hush")
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(Signer(ed25519.Ed25519PrivateKey.generate()))

#!/usr/bin/python3
"""Known answers for sealing: makes `container-1.json` and checks it, independently of Backstay's Rust code.

Promise: everything is computed here from docs/internals/repository-format.md, sections 2 and 3, with Debian's
python3-cryptography; `--write` writes the file, without it the file must be what would be written. The age file alone
is random: Debian's `age` makes it for `--write` and opens it for the check.
Not here: packs, tables, ranges (scripts/restore.py). The keys in here open nothing but this file.
"""
import base64, hashlib, json, pathlib, subprocess, sys, tempfile

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FILE = pathlib.Path(__file__).with_name("container-1.json")
CHUNK, ZERO_NONCE = 65536, bytes(12)
KEYS = {"data": bytes(range(32)), "index": bytes([0xA5] * 32), "facts": hashlib.sha256(b"facts").digest()}
MASTER_KEY, KEK, SALT = (hashlib.sha256(text).digest() for text in (b"master key", b"kek", b"salt"))
ENVELOPE = "postgres/shop/20261123T020011Z-full-k3q7mz2abc"
BACKUP = ENVELOPE + "/20261123T020011Z-full-k3q7mz2abc/"
KEYRING_ID, PASSPHRASE = "abcdefgh23", "correct horse battery stäple"
AGE_RECIPIENT = "age1wa6uyzfzk6wptfr8t3yhhjkp276envcpswkdkg42lvzhhsq4vqqql6sf9x"
AGE_IDENTITY = "AGE-SECRET-KEY-1JSJY2X00K7FNXPN5SJWWCCQPUEXL6EHQ3Y9F2909SG5PFCU6JARS0XX2Q8"
# kind, class of key, logical name, length of the plaintext
CONTAINERS = [(2, "facts", BACKUP + "head", 0), (8, "data", BACKUP + "t0005", 1), (9, "index", BACKUP + "x0000", 42)]
CONTAINERS += [(1, "data", f"{BACKUP}p{n:05}", size) for n, size in enumerate((65535, 65536, 65537, 131072, 131073))]
CONTAINERS += [(3, "facts", BACKUP + "t0000", 33), (4, "facts", BACKUP + "t0001", 34), (5, "data", BACKUP + "t0002", 35)]
CONTAINERS += [(6, "data", BACKUP + "t0003", 36), (7, "data", BACKUP + "t0004", 37)]
EPOCH, RUN, SYSTEM = "20261123T020011Z-log-k3q7mz2abc", "20261123T020011Z-backup-k3q7mz2abc", "postgres/shop/6543210012345678"
RANGE = f"{SYSTEM}/00000002.0a0b0c0d/0000000003000000-0000000003001000.{EPOCH}-00000007"
CONTAINERS += [(10, "facts", RANGE, 40), (11, "data", RANGE, 41)]
CONTAINERS += [(12, "facts", f"{SYSTEM}/00000002.0a0b0c0d/20261123T02.{EPOCH}", 43)]
CONTAINERS += [(13, "facts", "postgres/shop/lineage/20261123T020011Z-attach-k3q7mz2abc", 44)]
CONTAINERS += [(14, "facts", f"{SYSTEM}/00000002-0123456789abcdef", 45), (15, "facts", f"facts/runs/{RUN}.started", 46)]
CONTAINERS += [(15, "facts", f"facts/runs/{RUN}.finished", 47)]
CONTAINERS += [(n, "facts", f"facts/{what}/20261123T020011Z-{what[:-1]}-k3q7mz2abc", n) for n, what in ((16, "drills"), (18, "holds"))]
CONTAINERS += [(17, "facts", "facts/audit/20261123T020011Z-audit-k3q7mz2abc", 17)]
hkdf = lambda key, salt, info, length: HKDF(SHA256(), length, salt, info).derive(key)
base64_text = lambda data: base64.b64encode(data).decode()
compact = lambda document: json.dumps(document, separators=(",", ":"))
key_id = lambda key: hkdf(key, b"", b"backstay/1/key-id", 16)
master_key_id = lambda key: hkdf(key, b"", b"backstay/1/kek-id", 8).hex()


def seal(kind, key, name, salt, plain):
    name = name.encode()
    name_check = hashlib.sha256(b"backstay/1/name\0" + name).digest()[:16]
    bound = b"BACKSTAY" + bytes([1, 1, kind, 16]) + len(plain).to_bytes(4, "big") + key_id(key) + name_check
    okm = hkdf(key, salt, b"backstay/1/object\0" + bound + name, 64)
    cipher, sealed = AESGCM(okm[:32]), bound + salt + okm[32:]
    chunks = [plain[at : at + CHUNK] for at in range(0, len(plain), CHUNK)] or [b""]
    for number, chunk in enumerate(chunks):
        is_last = int(number + 1 == len(chunks))
        sealed += cipher.encrypt(number.to_bytes(8, "big") + is_last.to_bytes(4, "big"), chunk, None)
    return sealed


def container(kind, key_class, name, length):
    salt = hashlib.sha256(name.encode()).digest()
    sealed = seal(kind, KEYS[key_class], name, salt, bytes(n * 31 % 251 for n in range(length)))
    facts = {"kind": kind, "key": key_class, "name": name, "salt": salt.hex(), "plaintext_length": length}
    facts |= {"sealed_length": len(sealed), "sealed_sha256": hashlib.sha256(sealed).hexdigest()}
    return facts | ({"sealed": sealed.hex()} if len(sealed) < 1024 else {})


def wrap(recipient_kind, recipient_id, classes, seal_lines):
    key_ids = {name: key_id(KEYS[name]).hex() for name in classes}
    lines = "".join(f"{name} {KEYS[name].hex()}\n" for name in classes).encode()
    fields = {"format": 1, "envelope": ENVELOPE, "recipient": {"kind": recipient_kind, "id": recipient_id}}
    return compact(fields | {"key_ids": key_ids, "wrap": base64_text(seal_lines(lines, compact(key_ids).encode()))})


def symmetric_wrap(recipient_kind, recipient_id, kek, classes):
    info = b"\0".join(text.encode() for text in ("backstay/1/wrap", ENVELOPE, recipient_kind, recipient_id))
    cipher = AESGCM(hkdf(kek, SALT, info, 32))
    seal_lines = lambda lines, key_ids: SALT + cipher.encrypt(ZERO_NONCE, lines, key_ids)
    return wrap(recipient_kind, recipient_id, classes, seal_lines)


def keyring():
    salt = SALT[:16]
    stretched = hashlib.scrypt(PASSPHRASE.encode(), salt=salt, n=1 << 16, r=8, p=1, maxmem=1 << 27, dklen=32)
    sealing = hkdf(stretched, salt, b"backstay/1/keyring\0" + KEYRING_ID.encode(), 32)
    sealed = base64_text(AESGCM(sealing).encrypt(ZERO_NONCE, KEK, None))
    fields = {"format": 1, "id": KEYRING_ID, "kdf": "scrypt", "log_n": 16, "r": 8, "p": 1}
    return compact(fields | {"salt": base64_text(salt), "kek_id": master_key_id(KEK), "wrap": sealed})


def age(arguments, stdin):
    return subprocess.run(["age", *arguments], input=stdin, stdout=subprocess.PIPE, check=True).stdout


def stored_age_file(stored, lines):
    objects = [json.loads(row["object"]) for row in stored["wraps"] if row["opens_with"] == "age"]
    file = base64.b64decode(objects[0]["wrap"])
    with tempfile.NamedTemporaryFile("w") as identity:
        print(AGE_IDENTITY, file=identity, flush=True)
        return file if age(["-d", "-i", identity.name], file) == lines else sys.exit("the age file holds other keys")


def vectors(seal_age):
    master_id, master_url = master_key_id(MASTER_KEY), base64.urlsafe_b64encode(MASTER_KEY).decode().rstrip("=")
    master_line = f"BACKSTAY-KEY-1:{master_url}:{hashlib.sha256(MASTER_KEY).hexdigest()[:8]}"
    opens = [("raw", symmetric_wrap("raw", master_id, MASTER_KEY, classes)) for classes in (KEYS, ["facts"])]
    opens += [("passphrase", symmetric_wrap("passphrase", KEYRING_ID, KEK, KEYS))]
    opens += [("none", wrap("none", "none", KEYS, lambda lines, _: lines))]
    opens += [("age", wrap("age", AGE_RECIPIENT, KEYS, lambda lines, _: seal_age(lines)))]
    master_lines = [master_line, MASTER_KEY.hex(), base64_text(MASTER_KEY)]
    return {
        "about": "made by check.py; see repository-format.md, sections 2 and 3",
        "plaintext": "byte n is n * 31 modulo 251",
        "keys": {name: {"key": key.hex(), "id": key_id(key).hex()} for name, key in KEYS.items()},
        "master_key": {"key": MASTER_KEY.hex(), "id": master_id, "lines": master_lines},
        "passphrase": {"passphrase": PASSPHRASE, "keyring": keyring(), "key": KEK.hex()},
        "age": {"recipient": AGE_RECIPIENT, "identity": AGE_IDENTITY},
        "envelope": ENVELOPE,
        "containers": [container(*row) for row in CONTAINERS],
        "wraps": [{"opens_with": recipient, "object": text} for recipient, text in opens],
    }


if __name__ == "__main__":
    text = lambda seal_age: json.dumps(vectors(seal_age), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(text(lambda lines: age(["-r", AGE_RECIPIENT], lines)))
    elif FILE.read_text() != text(lambda lines: stored_age_file(json.loads(FILE.read_text()), lines)):
        sys.exit(f"{FILE.name} is not what the format document gives: see `check.py --write` and git diff")
    print(f"{FILE.name}: {len(CONTAINERS)} containers, 5 wraps, 1 keyring object")

#!/usr/bin/python3
"""Restores PostgreSQL from a Backstay repository in a directory with nothing but a key: no Backstay, no server, no network.
Promise: docs/internals/repository-format.md, read with Debian's python3-cryptography and python3-zstandard alone. Every object
is authenticated, every file's SHA-256 compared, pg_control written last; nothing is written but DIR and DIR.tablespaces.
Not here: Redis, Qdrant, increments; object stores (copy the objects into a directory); ownership (run it as PostgreSQL's user).
With an age identity, put what `age -d` prints for each wrap into a --keys-file (wraps of `none` are these lines in clear):
  grep -rl '"kind":"age"' REPO/*/keys | while read -r w; do sed 's/.*"wrap":"//; s/".*//' $w | base64 -d | age -d -i ID; done"""
import argparse, base64, collections, contextlib, functools, hashlib, json, os, pathlib, re, shutil, struct, sys
try:
    import zstandard
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as error:
    sys.exit(f"restore.py: {error}: run /usr/bin/python3 restore.py after apt install python3-cryptography python3-zstandard")

BRANCH, LEVELS = "{system:016x}/{timeline:08x}.{lineage}", ("wal-archive/settled", "wal-archive/live", "wal-archive/held")
CHUNK, TAG, HEADER, CONTENT_MAX, ZERO_NONCE = 65536, 16, 112, 256 << 20, bytes(12)
PACK, HEAD, ROOT, RANGE_INDEX, RANGE_DATA, LINEAGE, HISTORY = 1, 2, 3, 10, 11, 13, 14
TABLES = {"pack-list": 4, "file-table": 5, "extent-table": 6, "frame-table": 7}
DATA_KINDS = (1, 5, 6, 7, 8, 11)  # sealed by the data key; everything read here besides, by the facts key
LEFT_OUT = (b"standby.signal", b"recovery.signal", b"tablespace_map")  # would follow the source, or share its tablespaces
FOLDERS = {"data": "", "wal": "/pg_wal", "history": "/pg_wal", "settings": "/backstay", "configuration": "/backstay"}
SETTINGS = """\n# A restored copy stops where its log ends, archives nowhere and follows nobody.
recovery_target = ''\nrecovery_target_name = ''\nrecovery_target_time = ''\nrecovery_target_xid = ''\nrecovery_end_command = ''
recovery_target_lsn = '%s'\nrecovery_target_inclusive = '%s'\nrecovery_target_timeline = '%s'\nrestore_command = 'false'
recovery_target_action = 'promote'\narchive_mode = 'off'\nprimary_conninfo = ''\nsynchronous_standby_names = ''\n"""
OPTIONS = {"key-file": ("FILE", "the raw key"), "passphrase-file": ("FILE", "the passphrase"), "keys-file": ("FILE", "as above"),
    "source": ("SERVICE", "what to restore"), "backup": ("ID", "from this backup, not from the newest good one"),
    "lineage": ("ID", "along this history of the log, where it has several"), "into": ("DIR", "the directory to make"),
    "until": ("LSN", "to this position, not to the end of what is stored")}
check = lambda holds, otherwise, about=None: holds or sys.exit(f"restore.py: {about or Repository.reading}: {otherwise}")
lsn = lambda position: f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
position = lambda text: int("".join(half.zfill(8) for half in text.split("/")), 16)
epoch_of = lambda name: name.split(".")[-1][:-9]  # of a range: FROM-TO.EPOCH-N
def check_outside(directories):  # LOG-4: recovery writes into them, on the source's machine into the source's own files
    for path in directories:
        check(not os.path.exists(path) or not os.listdir(path), f"the log makes a tablespace in {path}, which is not empty")
decompress = lambda frames: zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True).read(CONTENT_MAX)
hkdf = lambda key, salt, info, length=32: HKDF(SHA256(), length, salt, info).derive(key)
def decrypt(key, nonce, sealed, associated_data=None):
    with contextlib.suppress(InvalidTag):  # the key is another one, or a bit was changed: no plaintext
        return AESGCM(key).decrypt(nonce, sealed, associated_data)
def unseal(data, kind, logical, keys):
    """The plaintext of the container that begins the data (section 2 of the format), and what follows it."""
    check(data[:12] == b"BACKSTAY" + bytes([1, 1, kind, 16]), f"it is no object of kind {kind}, format version 1")
    key = keys.get(("data" if kind in DATA_KINDS else "facts", data[16:32]))
    check(key, f"the key that was given does not open the key {data[16:32].hex()} that it is sealed with")
    okm = hkdf(key, data[48:80], b"backstay/1/object\0" + data[:48] + logical.encode(), 64)
    check(data[80:HEADER] == okm[32:], f"its header was changed, or it was not written as {logical}")
    end = HEADER + (length := int.from_bytes(data[12:16], "big")) + TAG * max(1, -(-length // CHUNK))
    chunks = [data[at : min(at + CHUNK + TAG, end)] for at in range(HEADER, end, CHUNK + TAG)]
    plain = [decrypt(okm[:32], struct.pack(">QI", n, n + 1 == len(chunks)), chunk) for n, chunk in enumerate(chunks)]
    check(None not in plain, "its content was changed, or bytes are missing")
    return b"".join(plain), data[end:]
def open_wrap(text, keks):  # the lines in a wrap (section 3); none if it is not for us, or was changed: it may be planted (KEY-3)
    try:
        wrap = json.loads(text)
        recipient, sealed = (wrap["recipient"]["kind"], wrap["recipient"]["id"]), base64.b64decode(wrap["wrap"])
        info = "\0".join(("backstay/1/wrap", wrap["envelope"], *recipient)).encode()
        kek, key_ids = keks.get(recipient), json.dumps(wrap["key_ids"], separators=(",", ":")).encode()
        return (kek and decrypt(hkdf(kek, sealed[:32], info), ZERO_NONCE, sealed[32:], key_ids) or b"").decode()
    except (LookupError, ValueError, TypeError):
        return ""
class Repository:  # the objects, and every key that the secret opens, by class and id: a facts key is never taken for a data key
    reading = "--until"  # what is at hand, for error messages: an object, or an option such as this first one
    def __init__(self, options):
        self.root, self.keys, self.keks = pathlib.Path(options.repository), {}, {}
        self.info = json.loads(self.read("repository.json"))
        check(self.info["format"] == 1, f"its format is {self.info['format']}; this script reads 1")
        lines = [self.read(options.keys_file, option="--keys-file").decode()] if options.keys_file else []
        if options.key_file:
            self.take_master_key(self.read(options.key_file, option="--key-file").decode().strip().removeprefix("BACKSTAY-KEY-1:"))
        for name in self.names("keyring") if options.passphrase_file else []:
            self.open_keyring(self.read(options.passphrase_file, option="--passphrase-file"), json.loads(self.read(name)))
        for folder in ("postgres-backups/keys", "wal-archive/keys", "facts/keys"):
            lines += [open_wrap(self.read(name), self.keks) for name in self.names(folder)]
        for key_class, key in re.findall("^(data|index|facts) ([0-9a-f]{64})$", "\n".join(lines), re.MULTILINE):
            self.keys[key_class, hkdf(bytes.fromhex(key), b"", b"backstay/1/key-id", 16)] = bytes.fromhex(key)
        check(self.keys, "what was given opens no wrap in this repository", "--key-file, --passphrase-file, --keys-file")
    def take_master_key(self, line):
        text, _, checksum = line.partition(":")
        text = text.replace("-", "+").replace("_", "/").rstrip("=")  # base64 of either alphabet, or hexadecimal
        kek = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(text + "=")
        check(len(kek) == 32 and checksum in ("", hashlib.sha256(kek).hexdigest()[:8]), "the key file has a typing error")
        self.keks["raw", hkdf(kek, b"", b"backstay/1/kek-id", 8).hex()] = kek
    def open_keyring(self, passphrase, ring):
        salt, info = base64.b64decode(ring["salt"]), b"backstay/1/keyring\0" + ring["id"].encode()
        check(14 <= ring["log_n"] <= 20, "its key derivation costs more or less than readers accept")
        stretched = hashlib.scrypt(passphrase.rstrip(b"\r\n"), salt=salt, n=1 << ring["log_n"], r=8, p=1, maxmem=2**31 - 2, dklen=32)
        self.keks["passphrase", ring["id"]] = decrypt(hkdf(stretched, salt, info), ZERO_NONCE, base64.b64decode(ring["wrap"]))
    def names(self, folder):
        return sorted(str(path.relative_to(self.root)) for path in (self.root / folder).rglob("[!.]*") if path.is_file())
    def read(self, name, sha256=None, option=None):  # an object, or the file that an option names
        Repository.reading, path = option or name, pathlib.Path("" if option else self.root, name)
        data = check(option or path.is_file() or not path.exists(), "what lies there is no file") and path.read_bytes()
        return check(sha256 in (None, hashlib.sha256(data).hexdigest()), "its SHA-256 is not the recorded one") and data
    def open(self, name, kind, logical, sha256=None):
        plain, rest = unseal(self.read(name, sha256), kind, logical, self.keys)
        return check(not rest, "bytes were added") and plain
class Backup:  # a head, and after `load` its tables (section 4 of the format)
    def __init__(self, repository, name):
        self.repository, (_, _, self.retention, self.source, self.generation, self.id) = repository, name.split("/")
        self.logical = f"postgres/{self.source}/{self.generation}/{self.id}/"
        self.head = json.loads(repository.open(name, HEAD, self.logical + "head"))
        own = {"format": 1, "repository": repository.info["repository"], "source": self.source, "backup": self.id}
        check(dict(self.head, **own) == self.head, "it is the head of another backup, or of another format than 1")
    @functools.lru_cache(maxsize=2)  # a pack is read once for all frames in it
    def part(self, folder, name, kind, sha256):
        path = f"postgres-backups/{folder}/{self.retention}/{self.source}/{self.generation}/{self.id}/{name}"
        return self.repository.open(path, kind, self.logical + name, sha256)
    def load(self):
        content, root = collections.defaultdict(bytes), self.head["root"]
        for row in json.loads(decompress(self.part("tables", root["name"], ROOT, root["sha256"])))["tables"]:
            if row["kind"] in TABLES:
                content[row["kind"]] += decompress(self.part("tables", row["name"], TABLES[row["kind"]], row["sha256"]))
        self.packs, self.files = ([json.loads(line) for line in content[k].splitlines()] for k in ("pack-list", "file-table"))
        self.frames, self.extents = list(struct.iter_unpack(">IIII", content["frame-table"])), collections.defaultdict(list)
        for entry, *extent in struct.iter_unpack(">IIIIQ", content["extent-table"]):
            self.extents[entry].append(extent)
    def frame(self, number):
        pack, position, compressed, _ = self.frames[number]
        plain = self.part("data", self.packs[pack]["name"], PACK, self.packs[pack]["sha256"])
        return decompress(plain[position : position + compressed])
    def content(self, file):
        plain = bytearray(file["size"])
        for frame, skip, length, offset in self.extents[file["n"]]:
            plain[offset : offset + length] = self.frame(frame)[skip : skip + length]
        return check(hashlib.sha256(plain).hexdigest() == file["sha256"], f"{file['path']} has another SHA-256") and plain
class Log:  # what is stored of one source's log, by lineage (section 5 of the format)
    def __init__(self, repository, source):
        self.repository, self.source, self.lineages, self.moved = repository, source, {}, {}
        for name in repository.names(f"wal-archive/lineage/{source}"):
            record = json.loads(repository.open(name, LINEAGE, f"postgres/{source}/lineage/{name.split('/')[-1]}"))
            self.lineages.setdefault(record["branch"]["lineage"], record)  # the first record names the parent
            for epoch in (moved := record.get("moved") or {"epochs": ()})["epochs"]:  # what it stored there is of this lineage
                self.moved.setdefault((BRANCH.format(**moved["branch"]), epoch), BRANCH.format(**record["branch"]))
    home = lambda self, branch, epoch: self.home(self.moved[branch, epoch], epoch) if (branch, epoch) in self.moved else branch
    def ranges(self, record):
        is_of = lambda name: self.home("/".join(name.split("/")[3:5]), epoch_of(name)) == BRANCH.format(**record["branch"])
        names = [name for level in LEVELS for name in self.repository.names(f"{level}/{self.source}") if is_of(name)]
        found = [(*(int(half, 16) for half in name.split("/")[-1][:33].split("-")), name) for name in names]
        return sorted(found, key=lambda stored: (stored[0], -stored[1]))  # of those that begin together, the longest first
    def read(self, begin, end, name):  # facts and bytes of a range: two containers, one after the other
        logical, keys = "postgres/" + name.split("/", 2)[2], self.repository.keys
        index, rest = unseal(self.repository.read(name), RANGE_INDEX, logical, keys)
        frames, rest = unseal(rest, RANGE_DATA, logical, keys)
        index, plain = json.loads(index), decompress(frames)
        good = not rest and len(plain) == end - begin and hashlib.sha256(plain).hexdigest() == index["sha256"]
        return check(good, "its bytes are not the ones that its index names") and (index["facts"], plain)
    def chain(self, lineage, base):  # from the lineage of the base to the wanted one: (record, timeline, where its part ends)
        chain, end = [], 1 << 64
        while (record := self.lineages.get(lineage)) and len(chain) < len(self.lineages):
            chain.insert(0, (record, record["branch"]["timeline"], end))
            if not record["parent"] or record["parent"]["fork"] < base["stop"]:
                return chain
            lineage, end = record["parent"]["branch"]["lineage"], min(end, record["parent"]["fork"])
        check(False, f"name one, or give --no-log: the log of {self.source} has {', '.join(self.lineages) or 'none'}", "--lineage")
def place_log(log, chain, base, last, until, directory):
    """Puts the chain's bytes into pg_wal; gives the target: `until` if a record begins there or later, else the last record."""
    at, stop, size, previous, placed = base["end_point"]["start"], base["stop"], base["segment_size"], base["timeline"], None
    path = lambda timeline, at: f"{directory}/pg_wal/{timeline:08X}{at >> 32:08X}{(at & 0xFFFFFFFF) // size:08X}"
    for record, timeline, end in chain:
        if timeline != previous and at % size:  # LIN-3: the switch segment begins with its ancestor's bytes
            shutil.copyfile(path(previous, at), path(timeline, at))
        for begin, whole, name in log.ranges(record):
            to, epoch = min(whole, end), epoch_of(name)
            twice = (max(begin, base["start"]), min(to, at) if placed not in (None, epoch) else 0)  # two epochs hold it: LOG-2
            if last < until and (at < to and (at < until or begin <= at) or twice[0] < twice[1]):
                check(begin <= at, f"the log has a gap at {lsn(at)}: --until {lsn(at)} restores what lies before it")
                facts, data = log.read(begin, whole, name)
                made = [point for point in facts.get("points", []) if point["kind"] == "tablespace"]
                check_outside(point["name"] for point in made if base["start"] <= point["start"] < min(to, until))
                piece, other = data[max(0, at - begin) : max(0, to - begin)], data[twice[0] - begin : max(0, twice[1] - begin)]
                with open(os.open(path(timeline, begin), os.O_RDWR | os.O_CREAT), "r+b") as file:
                    file.truncate(size)
                    same = os.pread(file.fileno(), len(other), twice[0] % size) == other
                    check(same, f"two servers wrote here at the same time: run backstay wal settle {log.source}")
                    own = os.pread(file.fileno(), max(0, min(to, stop) - at), at % size)  # the base's own copy, LIN-2
                    check(piece.startswith(own), "the backup does not lie on this lineage: its WAL differs")
                    os.pwrite(file.fileno(), piece, at % size)
                if at < to:
                    at, placed, records = to, epoch, facts.get("records")
                    last = records["last_start"] if records and records["last_end"] <= to else last
        check(at >= stop, f"the log ends at {lsn(at)}, before the backup's stop {lsn(stop)}: restore with --no-log")
        previous = timeline
    return (lsn(until), "false") if chain and last >= until else (lsn(last), "true")
def place_files(backup, files, directory):
    for file in sorted(files, key=lambda file: backup.extents[file["n"]][:1]):  # directories, then files as they lie in packs
        role, path, kind = file["role"], file["path"], file["kind"]
        path = bytes.fromhex(path["hex"]) if isinstance(path, dict) else path.encode()
        check(b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/")), f"{path} could leave its directory")
        folder = f".tablespaces/{int(role['tablespace'])}" if isinstance(role, dict) else FOLDERS[role]
        target = os.fsdecode(os.fsencode(f"{directory}{folder}/") + path)
        if kind in ("file", "directory") and not (role == "data" and path in LEFT_OUT):  # links are made by restore
            os.makedirs(target if kind == "directory" else os.path.dirname(target), exist_ok=True)
            if kind == "file":
                pathlib.Path(target).write_bytes(backup.content(file))
            os.chmod(target, file["mode"] & 0o777)
def restore(repository, backup, directory, lineage, until):
    base, log = backup.head["log"], Log(repository, backup.source) if lineage != "none" else None
    check(not any(map(os.path.lexists, (directory, f"{directory}.tablespaces"))), f"{directory} exists already", "--into")
    chain = log.chain(lineage or (len(log.lineages) == 1 and [*log.lineages][0]), base) if log else []
    check_outside(backup.head["engine"].get("tablespaces_made", []))
    backup.load()
    control = [file for file in backup.files if (file["role"], file["path"]) == ("data", "global/pg_control")]
    place_files(backup, [file for file in backup.files if file not in control], directory)
    for oid in {file["role"]["tablespace"] for file in backup.files if isinstance(file["role"], dict)}:
        os.symlink(os.path.abspath(f"{directory}.tablespaces/{oid}"), f"{directory}/pg_tblspc/{oid}")
    target = place_log(log, chain, base, position(backup.head["engine"]["last_record"]), until, directory)
    wanted = [f"{timeline:08x}-{record['history']}" for record, timeline, _ in chain]
    for name in repository.names(f"wal-archive/history/{backup.source}/{base['system']:016x}"):
        path, is_ours = pathlib.Path(f"{directory}/pg_wal/{name[-25:-17].upper()}.history"), name[-25:] in wanted
        if is_ours or not path.exists():  # stubs make a promoted copy take a number that is not in use
            path.write_bytes(repository.open(name, HISTORY, "postgres/" + name.split("/", 2)[2]) if is_ours else b"# in use\n")
    with open(f"{directory}/postgresql.auto.conf", "a") as settings, open(f"{directory}/recovery.signal", "w"):
        settings.write(SETTINGS % (*target, chain[-1][1] if chain else base["timeline"]))
    os.sync()
    place_files(backup, control, directory)
    os.sync()
    print(f"{directory}: {len(backup.files)} files of {backup.id}; recovery ends at {target[0]}")
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", metavar="REPO", help="the directory that holds repository.json")
    parser.add_argument("command", nargs="?", choices=["list"], help="print what is stored, instead of restoring it")
    for option, (metavar, meaning) in OPTIONS.items():
        parser.add_argument(f"--{option}", metavar=metavar, help=meaning)
    parser.add_argument("--no-log", dest="lineage", action="store_const", const="none", help="to the end of the backup alone")
    options = parser.parse_intermixed_args()
    until, repository = position(options.until or "100000000/0"), Repository(options)
    heads = repository.root.glob(f"postgres-backups/manifests/*/{options.source or '*'}/*/{options.backup or '[!.]*'}")
    backups = [Backup(repository, str(path.relative_to(repository.root))) for path in sorted(heads)]
    if options.command == "list":
        print(*(f"{b.source} backup {b.id} {b.head['verdict']} to {lsn(b.head['log']['stop'])}" for b in backups), sep="\n")
        for log in [Log(repository, source) for source in sorted({backup.source for backup in backups})]:
            for name, record in log.lineages.items():
                ends = [end for _, end, _ in log.ranges(record)]
                print(f"{log.source} lineage {name} timeline {record['branch']['timeline']} to {lsn(max(ends, default=0))}")
    else:
        usable = [b for b in backups if options.backup or b.head["verdict"] == "good" and b.head["log"]["stop"] <= until]  # REPO-6
        check(options.source and options.into, "both are needed", "--source and --into")
        chosen = " ".join(f"--{option}" for option in ("source", "backup", "until") if vars(options)[option])
        check(usable, "no good backup fits; `list` prints all, and where they end", chosen)
        restore(repository, max(usable, key=lambda backup: (backup.head["log"]["stop_time"], backup.id)), options.into, options.lineage, until)
try:
    os.umask(0o077)
    main()
except (OSError, LookupError, ValueError, TypeError, AttributeError, struct.error, zstandard.ZstdError) as error:
    check(False, f"{type(error).__name__}: {error}")

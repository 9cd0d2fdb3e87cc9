#!/usr/bin/python3
"""Backup and restore of one throw-away PostgreSQL 15 by several tools, interleaved, several times.

Promise: every tool works on the same cluster in the same run, as the same user, with checksums on; CPU is that of the tool, its
children and the server's processes; memory is that of the tool's largest process; a restore counts when it is on disk.
Not here: building and installing (scripts/bench, scripts/setup)."""
import datetime, json, os, pathlib, pwd, shutil, statistics, subprocess, sys, tempfile, time

BIN = pathlib.Path("/usr/lib/postgresql/15/bin")
TICK = os.sysconf("SC_CLK_TCK")
PASSPHRASE = "a passphrase for a bench"
CONF = ["listen_addresses = ''", "max_wal_size = '8GB'", "checkpoint_timeout = '1h'", "autovacuum = off"]


def user_of_servers():
    """PostgreSQL refuses to run as root."""
    return None if os.getuid() else pwd.getpwnam("postgres")


def run(command, directory, check=True):
    """Runs to the end; gives wall seconds, CPU seconds (children included) and the largest process in KiB."""
    user, log = user_of_servers(), directory / "last.log"
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(directory), "TZ": "UTC",
                   "PGHOST": str(directory), "PGUSER": "postgres", "PGDATABASE": "postgres", "RUST_BACKTRACE": "0"}
    become = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    with open(log, "wb") as out:
        begun = time.monotonic()
        child = subprocess.Popen([str(word) for word in command], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=subprocess.STDOUT, **become)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.monotonic() - begun
    child.returncode = os.waitstatus_to_exitcode(status)
    if check and child.returncode:
        sys.exit(f"bench: {command} ended with {child.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss}


def stat_of(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2:].split()
    return int(fields[1]), [int(field) for field in fields[11:15]]


def server_cpu(postmaster):
    """Of the postmaster, of those it has waited for, and of those that live."""
    ticks = sum(stat_of(postmaster)[1])
    for entry in os.listdir("/proc"):
        try:
            parent, own = stat_of(entry) if entry.isdigit() else (0, [])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile, and is in the postmaster's figure now
        ticks += sum(own) if parent == postmaster else 0
    return ticks / TICK


def stored(path):
    files = [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum(file.stat().st_size for file in files), len(files)


class Backstay:
    name, unequal = "backstay", "over the replication protocol; with its start..stop log; a SHA-256 of every file; two workers when restoring"

    def __init__(self, room, program):
        self.room, self.program = room, room.place / "bin-backstay"
        shutil.copy(program, self.program)
        self.program.chmod(0o755)

    def prepare(self, repo):
        config = self.room.place / "backstay.yaml"
        config.write_text(f'version: 1\nrepo: "file://{repo}"\nkeys: [ {{ file: ./backstay.key }} ]\nservices:\n'
                          f'  bench: {{ postgresql: "host={self.room.place} user=postgres dbname=postgres" }}\n')
        self.command = [self.program, "--config", config, "--no-input", "--quiet"]
        self.room.run([*self.command, "init", "bench"], check=False)  # its check may warn about a server for benches

    def backup(self, repo):
        return [*self.command, "backup", "bench"]

    def restore(self, repo, into):
        return [*self.command, "restore", "bench", "--to", "immediate", "--into", into, "--confirm"]


class PgBackRest:
    unequal = "reads the server's files, so it must run on its machine; the log is left out (archive-check=n); a SHA-1 of every file"

    def __init__(self, room, workers):
        self.room, self.workers, self.name = room, workers, f"pgBackRest p{workers}"

    def command(self, repo, *words):
        place = self.room.place
        options = {"stanza": "bench", "pg1-path": self.room.data, "pg1-socket-path": place, "pg1-user": "postgres",
                   "repo1-path": repo, "repo1-cipher-type": "aes-256-cbc", "lock-path": place / "lock",
                   "log-level-file": "off", "log-level-console": "warn", "log-path": place}
        return ["pgbackrest", *(f"--{name}={value}" for name, value in options.items()), *words]

    def prepare(self, repo):
        os.environ["PGBACKREST_REPO1_CIPHER_PASS"] = PASSPHRASE
        self.room.run(self.wrapped(self.command(repo, "stanza-create", "--no-online")))

    def wrapped(self, command):
        return ["env", f"PGBACKREST_REPO1_CIPHER_PASS={PASSPHRASE}", *command]

    def backup(self, repo):
        return self.wrapped(self.command(repo, "--type=full", "--start-fast", "--no-archive-check", "--compress-type=zst",
                                         "--compress-level=1", f"--process-max={self.workers}", "backup"))

    def restore(self, repo, into):
        command = self.command(repo, "--type=none", f"--process-max={self.workers}", "restore")
        return self.wrapped([f"--pg1-path={into}" if str(word).startswith("--pg1-path=") else word
                             for word in command if not str(word).startswith(("--pg1-socket", "--pg1-user"))])


class PgBaseBackup:
    name, unequal = "pg_basebackup zstd:1", "over the replication protocol, with its log; not encrypted; one tar file; nothing is compared when restoring"

    def __init__(self, room):
        self.room = room

    def prepare(self, repo):
        pass

    def backup(self, repo):
        return ["pg_basebackup", "-D", repo, "-Ft", "-X", "fetch", "-c", "fast", "--compress=client-zstd:1"]

    def restore(self, repo, into):
        return ["sh", "-c", f"zstd -dcq {repo}/base.tar.zst | tar -x -C {into} && sync -f {into}"]


class PgBaseBackupPlain(PgBaseBackup):
    name, unequal = "pg_basebackup plain", "the same, not compressed either; restored by cp"

    def backup(self, repo):
        return ["pg_basebackup", "-D", repo / "plain", "-Fp", "-X", "fetch", "-c", "fast"]

    def restore(self, repo, into):
        return ["sh", "-c", f"cp -a {repo}/plain/. {into} && sync -f {into}"]


class Room:
    """A directory with a server."""

    def __init__(self, scale):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="backstay-bench-"))
        self.data, self.scale, self.server = self.place / "data", scale, None
        self.own(self.place)

    def own(self, path):
        user = user_of_servers()
        if user:
            os.chown(path, user.pw_uid, user.pw_gid)
        path.chmod(0o700 if path != self.place else 0o755)

    def run(self, command, check=True):
        return run(command, self.place, check)

    def fresh(self, name):
        path = self.place / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        self.own(path)
        return path

    def start(self):
        say(f"filling a server at scale {self.scale}")
        self.run([BIN / "initdb", "-D", self.data, "-U", "postgres", "--data-checksums", "-A", "trust", "--no-sync"])
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write("\n".join([*CONF, f"unix_socket_directories = '{self.place}'", ""]))
        self.run([BIN / "pg_ctl", "-D", self.data, "-w", "-l", self.place / "server.log", "start"])
        self.server = int((self.data / "postmaster.pid").read_text().split()[0])
        self.run([BIN / "pgbench", "-i", "-q", "-s", self.scale])
        self.run([BIN / "psql", "-qc", "CHECKPOINT"])

    def end(self):
        if self.server:
            self.run([BIN / "pg_ctl", "-D", self.data, "-m", "immediate", "stop"], check=False)
        shutil.rmtree(self.place, ignore_errors=True)

    def measure(self, command, server):
        os.sync()
        before = server_cpu(self.server)
        figures = self.run(command)
        figures["server"] = server_cpu(self.server) - before if server else 0
        figures["cpu"] += figures["server"]
        return figures


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def one(room, tool, repetition):
    repo = room.fresh("repo")
    tool.prepare(repo)
    room.run([BIN / "psql", "-qc", "CHECKPOINT"])
    backup = room.measure(tool.backup(repo), True)
    size, files = stored(repo)
    into = room.fresh("restored")
    restore = room.measure(tool.restore(repo, into), False)
    placed = stored(into)[0]
    if placed < 0.9 * stored(room.data / "base")[0]:
        sys.exit(f"bench: {tool.name} restored only {placed} bytes")
    shutil.rmtree(into)
    shutil.rmtree(repo)
    say(f"{repetition} {tool.name}: backup {backup['wall']:.1f} s, {backup['cpu']:.1f} CPU s; "
        f"restore {restore['wall']:.1f} s, {restore['cpu']:.1f} CPU s; {size / 1e6:.1f} MB")
    return {"tool": tool.name, "repetition": repetition, "backup": backup, "restore": restore, "stored": size, "objects": files}


def medians(runs, name):
    mine = [found for found in runs if found["tool"] == name]
    median = {phase: {figure: statistics.median(found[phase][figure] for found in mine) for figure in ("wall", "cpu", "server", "rss")}
              for phase in ("backup", "restore")}
    return {**median, "stored": statistics.median(found["stored"] for found in mine), "objects": mine[0]["objects"]}


def table(results, reference):
    print("| | backup wall s | CPU s | peak MiB | stored MB (files) | restore wall s | CPU s | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, result in results.items():
        cells = []
        for phase in ("backup", "restore"):
            mine, theirs = result[phase], results[reference][phase]
            cells += [f"{mine[figure]:.1f} ({mine[figure] / theirs[figure]:.2f})" for figure in ("wall", "cpu")]
            cells.append(f"{mine['rss'] / 1024:.0f}")
        cells.insert(3, f"{result['stored'] / 1e6:.1f} ({result['objects']})")
        print(f"| {name} | {' | '.join(cells)} |")


def machine():
    model = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")][:1]
    version = subprocess.run([BIN / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    peer = subprocess.run(["pgbackrest", "version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"cores": len(os.sched_getaffinity(0)), "cpu": model[0] if model else "unknown", "postgres": version, "pgbackrest": peer,
            "load": os.getloadavg()[0], "date": datetime.date.today().isoformat()}


def main(program, report, repetitions, scale):
    here, room = machine(), Room(scale)
    try:
        room.start()
        tools = [Backstay(room, program), PgBackRest(room, 1), PgBackRest(room, 2), PgBaseBackup(room), PgBaseBackupPlain(room)]
        runs = []
        for repetition in range(1, repetitions + 1):
            # Another order each time, so that nobody always follows the same neighbour.
            turn = (repetition - 1) % len(tools)
            runs += [one(room, tool, repetition) for tool in tools[turn:] + tools[:turn]]
        size = stored(room.data)[0] - stored(room.data / "pg_wal")[0]
    finally:
        room.end()
    results = {tool.name: medians(runs, tool.name) for tool in tools}
    document = {"machine": here, "scale": scale, "bytes": size, "medians": results, "runs": runs}
    pathlib.Path(report).write_text(json.dumps(document, indent=1))
    print(f"{here['date']}, {here['cores']} cores ({here['cpu']}, load {here['load']:.1f} before), {here['postgres']}, {here['pgbackrest']}; pgbench "
          f"scale {scale}, {size / 1e9:.2f} GB without the log; medians of {repetitions}; in brackets the ratio to {tools[1].name}.\n")
    table(results, tools[1].name)
    spent = ", ".join(f"{name} {result['backup']['server']:.1f}" for name, result in results.items())
    print(f"\nCPU seconds that the server's processes spent in a backup (counted above): {spent}.\n\nWhat is not equal:\n")
    for tool in tools:
        print(f"- {tool.name}: {tool.unequal}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

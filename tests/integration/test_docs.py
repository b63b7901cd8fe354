# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the programs do: topologies in it validate, links lead
somewhere, every key, option, flag, table and event stands in it, and its plugin works."""
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile

BIN = os.environ["TIERED_BIN"]
SOURCE = os.environ["TIERED_SOURCE"]
TIERED = os.path.join(BIN, "tiered")
problems = []


def complain(fmt, *args):
    problems.append(fmt % args)


def read(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as f:
        return f.read()


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def pages():
    """Every Markdown file of the source tree, by its path from the root."""
    found = []
    for folder, folders, files in os.walk(SOURCE):
        folders[:] = [f for f in folders if not f.startswith((".", "build")) and f != "runs"]
        found += [os.path.relpath(os.path.join(folder, f), SOURCE)
                  for f in files if f.endswith(".md")]
    return sorted(found)


def blocks(text, language):
    """(line, text) of each fenced block."""
    for match in re.finditer(r"^```%s\n(.*?)^```" % language, text, re.S | re.M):
        yield text[:match.start()].count("\n") + 2, match.group(1)


def check_topologies():
    """Whole topologies are without errors and warnings."""
    env = {**os.environ, "DATA": "/data", "ROUNDS": "5"}  # what docs/topology.md reads
    n = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t.yaml")
        for page in pages():
            for line, text in blocks(read(page), "yaml"):
                if re.search(r"^tiered: 1$", text, re.M):
                    with open(path, "w", encoding="utf-8") as f:
                        f.write(text)
                    out = run(TIERED, "validate", path, env=env)
                    n += 1
                    if out.returncode or out.stderr:
                        complain("%s:%d: %s", page, line, out.stderr)
    for name in sorted(os.listdir(os.path.join(SOURCE, "topologies"))):
        if name.endswith(".yaml"):
            out = run(TIERED, "validate", os.path.join(SOURCE, "topologies", name))
            n += 1
            if out.returncode or out.stderr:
                complain("%s: %s", name, out.stderr)
    return n


def anchors(text):
    """Headings as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    heads = re.findall(r"^#+ +(.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


def check_links():
    n = 0
    for page in pages():
        text = re.sub(r"^```.*?^```", "", read(page), flags=re.S | re.M)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            n += 1
            path, _, anchor = target.partition("#")
            path = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            if not os.path.exists(os.path.join(SOURCE, path)):
                complain("%s: there is no '%s'", page, target)
            elif anchor and path.endswith(".md") and anchor not in anchors(read(path)):
                complain("%s: '%s' has no such heading", page, target)
    return n


def check_keys():
    """Every key of the loader's tables begins a row of the page."""
    page = read("docs", "topology.md")
    source, n = read("core", "topology", "rows.c"), 0
    for table, rows in re.findall(r"key_row (\w+)\[\] = \{(.*?)^\};", source, re.S | re.M):
        section = re.fullmatch(r"(stop|evaluate|orchestrator)_rows", table)
        owner = {"stop": "stop_when"}.get(section and section.group(1), section and section.group(1))
        for key in re.findall(r'\{"(\w+)", KEY_', rows):
            n += 1
            row = "| `%s%s` |" % (owner + "." if owner else "", key)
            if "\n" + row not in page:
                complain("docs/topology.md does not have the key '%s' of %s", key, table)
    return n


def option_rows(options, prefix=""):
    """(dotted name, option) of all options, nested ones too; not the alternatives."""
    for option in options:
        yield prefix + option["name"], option
        inner = prefix + option["name"] + "."
        for alternative in option.get("alternatives", []):
            yield from option_rows(alternative.get("options", []),
                                   inner + alternative["name"] + ".")
        yield from option_rows(option.get("options", []), inner)


def section_of(page, plugin):
    """From the plugin's name to the next one, and tables of options that it shares."""
    own = re.search(r"^\*\*\[`%s`\].*?(?=^\*\*\[|^Shared options of |^<!-- end)" % plugin, page,
                    re.S | re.M)
    shared = re.findall(r"^Shared options of [^\n]*`%s`[^\n]*\n\n.*?\n\n" % plugin, page,
                        re.S | re.M)
    return own and own.group() + "".join(shared)


def tables(source):
    """What docs/tables.py thinks of the page under a source tree, and whether it is current."""
    build = os.path.dirname(os.path.abspath(BIN))
    out = run(sys.executable, "-B", os.path.join(source, "docs", "tables.py"), "--check", build)
    return out.returncode == 0, out.stdout + out.stderr


def check_tables():
    """The tables of docs/topology.md are what ./dev docs makes, and it sees when not."""
    current, text = tables(SOURCE)
    if not current:
        complain("%s", text)
        return 1
    page = read("docs", "topology.md")
    stale = [page.replace("| `memory` | `512MiB` |", "| `memory` | `256MiB` |"),
             re.sub(r"^\| `hidden` .*\n", "", page, flags=re.M),
             page.replace("**[`median`]", "**[`medial`]")]
    misplaced = {page.replace("docs: filters -->", "docs: fillers -->"): "no table 'fillers'",
                 page.replace("docs: filters -->", "nobody: filters -->"): "no place for: filters"}
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(os.path.join(SOURCE, "plugins"), os.path.join(folder, "plugins"))
        os.mkdir(os.path.join(folder, "docs"))
        shutil.copy(os.path.join(SOURCE, "docs", "tables.py"), os.path.join(folder, "docs"))
        for other, words in {**{s: "run ./dev docs" for s in stale}, **misplaced}.items():
            with open(os.path.join(folder, "docs", "topology.md"), "w", encoding="utf-8") as f:
                f.write(other)
            current, text = tables(folder)
            if other == page or current or words not in text:
                complain("docs/tables.py --check does not say '%s', but '%s'", words, text)
    return 1 + len(stale) + len(misplaced)


def check_options():
    """Every option of every plugin has a row with its default and alternatives."""
    page, n = read("docs", "topology.md"), 0
    for plugin in json.loads(run(TIERED, "plugins", "list", "--json").stdout):
        section = section_of(page, plugin["name"])
        if section is None:
            complain("docs/topology.md does not have the plugin '%s'", plugin["name"])
            continue
        whole = json.loads(run(TIERED, "plugins", "show", plugin["name"], "--json").stdout)
        for name, option in option_rows(whole["options"]):
            n += 1
            row = re.search(r"^\| `%s` \|.*$" % re.escape(name), section, re.M)
            wanted = [a["name"] for a in option.get("alternatives", [])]
            wanted += [option["default"]] if option["default"] is not None else []
            wanted = ["`%s`" % w for w in wanted] + ["required"] * option["required"]
            for word in wanted if row else []:
                if word not in row.group():
                    complain("docs/topology.md: option '%s' of '%s' lacks %s", name,
                             plugin["name"], word)
            if not row:
                complain("docs/topology.md does not have the option '%s' of '%s'", name,
                         plugin["name"])
    return n


def check_flags():
    """Every flag that a command's --help names stands on its page."""
    commands = {("tiered", "up"): "running.md", ("tiered-agent",): "running.md",
                ("tiered", "aggregate"): "aggregate.md", ("tiered", "filter"): "aggregate.md",
                ("tiered", "validate"): "topology.md", ("tiered", "plan"): "topology.md",
                ("tiered", "status"): "running.md", ("tiered", "logs"): "running.md"}
    n = 0
    for command, page in commands.items():
        text = run(os.path.join(BIN, command[0]), *command[1:], "--help").stdout
        for flag in sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help"}):
            n += 1
            if not re.search(re.escape(flag) + r"(?![\w-])", read("docs", page)):
                complain("docs/%s does not have %s of '%s'", page, flag, " ".join(command))
    return n


def check_record():
    """Every table of run.db with its columns, and every event."""
    page, n = read("docs", "running.md"), 0
    source = re.search(r"schema\[\] =(.*?);\n\n", read("orchestrator", "record.c"), re.S).group(1)
    db = sqlite3.connect(":memory:")
    db.executescript("".join(re.findall(r'"([^"]*)"', source)))
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        row = re.search(r"^\| `%s` \|.*$" % table, page, re.M)
        for column in db.execute("PRAGMA table_info(%s)" % table).fetchall():
            n += 1
            if not row or "`%s`" % column[1] not in row.group():
                complain("docs/running.md does not have the column '%s' of '%s'", column[1], table)
    for folder in "agents", "orchestrator":
        for name in sorted(os.listdir(os.path.join(SOURCE, folder))):
            if not name.endswith(".c"):
                continue
            for event in re.findall(r'(?:run|agent)_event\([^;"]*?"(\w+)",', read(folder, name)):
                n += 1
                if "**`%s`**" % event not in page:
                    complain("docs/running.md does not have the event '%s'", event)
    return n


def check_plugin():
    """The plugin of docs/plugins.md compiles, describes itself, and aggregates."""
    text = read("docs", "plugins.md")
    (source,) = [b for _, b in blocks(text, "c") if "#include" in b]
    (build,) = re.findall(r"^\$ (gcc .*)$", text, re.M)
    st = os.path.join(SOURCE, "tests", "integration", "st.py")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "capmean.c"), "w", encoding="utf-8") as f:
            f.write(source)

        def step(command):
            out = run("bash", "-c", command, cwd=folder, env={**os.environ, "TIERED": SOURCE})
            if out.returncode or (out.stderr and command == build):
                complain("docs/plugins.md: %s: %s%s", command, out.stdout, out.stderr)
            return out.stdout
        step(build)
        shown = step("'%s' plugins show capmean --plugins ." % TIERED)
        for line in shown.splitlines():
            if not line.startswith("sha256:") and line not in text:
                complain("docs/plugins.md does not have the line '%s'", line)
        for line in step("'%s' plugins check capmean.so" % TIERED).splitlines():
            if not line.startswith("skip") and line not in text:
                complain("docs/plugins.md does not have the line '%s'", line)
        for name, values, count in ("a", "0, 10", 100), ("b", "10, 20", 900):
            step("python3 '%s' write %s '{\"w\": [\"F32\", [2], [%s]]}' num_examples=%d"
                 % (st, name, values, count))
        step("'%s' aggregate --plugins . --plugin capmean:cap=300 -o out a b" % TIERED)
        step("python3 '%s' near out w 1e-6 7.5 17.5" % st)
    return 1


for check in (check_topologies, check_links, check_tables, check_keys, check_options,
              check_flags, check_record, check_plugin):
    before = len(problems)
    n_checked = check()
    if not n_checked:
        complain("%s found nothing to look at", check.__name__)
    print("%s %s: %d looked at" % ("ok  " if len(problems) == before else "FAIL",
                                   check.__name__, n_checked))
for problem in problems:
    print(problem, file=sys.stderr)
sys.exit(1 if problems else 0)

"""The dashboard's server without a browser: its start, its state on disk, the files of its page."""

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import tarfile
import time

import pytest
import requests

from script.dashboard import __main__ as dashboard
from script.dashboard import assets as dashboard_assets
from script.dashboard import server as dashboard_server
from script.dashboard.assets import (
    PACKAGES,
    Package,
    ensure_assets,
    get_with_npm,
    missing_assets,
    static_folder,
)
from script.dashboard.server import EnvironmentFiles, prepare_folder
from tests.support.dashboard_process import DashboardProcess, copy_visdom, free_port, wait_for
from tests.support.helpers import assert_one_line_error, run_python
from util.errors import UserError


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A visdom whose page has all its files."""
    return copy_visdom(tmp_path_factory.mktemp("packages"), is_complete=True)


@pytest.fixture(scope="module")
def running(packages, tmp_path_factory):
    process = DashboardProcess(tmp_path_factory.mktemp("state"), packages=packages)
    yield process
    process.kill()


@pytest.fixture
def start(packages):
    """Starts dashboards that end with the test."""
    started = []

    def start_one(*arguments, **options):
        started.append(DashboardProcess(*arguments, packages=packages, **options))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()


def get(url, **headers):
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, headers=headers, timeout=10, allow_redirects=False)


# Start and end.


def test_says_where_its_page_is_and_nothing_else(running):
    assert len(running.lines) == 1
    assert running.lines[0].startswith(f"dashboard: http://localhost:{running.port} ")
    page = get(f"{running.url}/env/main")
    assert page.status_code == 200 and "js/main.js" in page.text


def test_listens_on_the_loopback_address_only(running):
    addresses = ["127.0.0.2"]  # loopback as well, so a server on all interfaces answers there
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it tells our address in the network
            addresses.append(probe.getsockname()[0])
        except OSError:
            pass
    socket.create_connection(("127.0.0.1", running.port), timeout=5).close()
    for address in addresses:
        with pytest.raises(OSError):
            socket.create_connection((address, running.port), timeout=1).close()


def test_port_that_another_program_has(main, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError) as raised:
            main(f"--port={port}", f"--env_path={tmp_path / 'state'}")
    assert f"port {port} is taken by another program" in str(raised.value)
    assert f"--display_port={port + 1}" in str(raised.value)
    assert not (tmp_path / "state").exists()


def test_port_that_a_dashboard_has(main, running, tmp_path):
    with pytest.raises(UserError, match=f"visdom server that runs already: {running.url}"):
        main(f"--port={running.port}", f"--env_path={tmp_path}")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--port=0", "from 1 to 65535"),
        ("--bind=192.0.2.7", "--bind: cannot listen on 192.0.2.7"),
        ("--bind=no.such.name.invalid", "--bind: no.such.name.invalid is no address"),
        ("--env_path={file}", "--env_path: {file} cannot be written"),
        ("--asset=npm", "did you mean --assets?"),
    ],
)
def test_bad_options_are_named(main, tmp_path, option, message):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError) as raised:
        main(f"--port={free_port()}", option.format(file=file))
    assert message.format(file=file) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture
def main(monkeypatch):
    """The program's main function within this process, with nothing missing on the page."""
    monkeypatch.setattr(dashboard, "ensure_assets", lambda *_: None)
    return lambda *arguments: dashboard.main(list(arguments))


# Requests of other sites' pages.


def test_pages_of_other_sites_are_refused(running):
    page, own = f"{running.url}/env/main", f"http://localhost:{running.port}"
    assert get(page, Origin=own).status_code == 200
    assert get(page, Origin="http://evil.example").status_code == 403
    for origin in ("null", "http://[", "//[x]:1"):
        assert get(page, Origin=origin).status_code == 403
        assert get(page, Host=origin).status_code in (400, 403)
    # A name that its owner lets point at 127.0.0.1.
    rebound = f"evil.example:{running.port}"
    assert get(page, Host=rebound, Origin=f"http://{rebound}").status_code == 403
    assert get(page, Host=f"127.0.0.1:{running.port}").status_code == 200
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode()}
    socket_url = f"{running.url}/socket"
    assert get(socket_url, **upgrade, **key, Origin="http://evil.example").status_code == 403


def test_others_are_let_in_on_demand(start, tmp_path):
    options = ("--bind=0.0.0.0", "--allow_origin=https://hub.example.org")
    process = start(tmp_path, options=options)
    assert any(line.startswith("warning: --bind=0.0.0.0") for line in process.lines)
    page = f"http://127.0.0.2:{process.port}/env/main"
    assert get(page).status_code == 200
    assert get(page, Host="our.machine", Origin="http://our.machine").status_code == 200
    assert get(page, Origin="https://hub.example.org").status_code == 200
    assert get(page, Origin="https://other.example.org").status_code == 403
    wait_for(lambda: "other.example.org" in process.lines[-1])


# Limits on what a request may take.

HURRIED = (
    "from pathlib import Path; from script.dashboard import server; "
    "server.IDLE_SECONDS = server.BODY_SECONDS = 1.5; server.BODY_BYTES = 100_000; "
    "server.serve({port}, env_path=Path({env_path!r}), say=lambda text: print(text, flush=True))"
)


def connect(process, text=""):
    """A connection that has sent `text`."""
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=10)
    connection.sendall(text.replace("\n", "\r\n").format(port=process.port).encode())
    return connection


def ending(connection):
    """What comes until the server hangs up."""
    with contextlib.suppress(ConnectionResetError), connection:
        return connection.makefile("rb").read()


POST = "POST /events HTTP/1.1\nHost: localhost:{port}\n"
SLOW = {
    "nothing": "",
    "half a header": "GET /env/main HT",
    "half a body": POST + "Content-Length: 50\n\n{{",
    "half a chunk": POST + "Transfer-Encoding: chunked\n\n9\nabc",
}


@pytest.fixture(scope="module")
def hurried(packages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hurried")
    process = DashboardProcess(folder, packages=packages, code=HURRIED)
    yield process
    process.kill()


def test_connections_that_send_no_whole_request_are_closed(hurried):
    begun = time.monotonic()
    connections = [connect(hurried, text) for text in SLOW.values()]
    assert [ending(connection) for connection in connections] == [b""] * len(SLOW)
    assert 1 < time.monotonic() - begun < 8


def test_bodies_and_headers_beyond_the_limit_are_refused(hurried):
    announced = connect(hurried, POST + "Content-Length: 100001\n\n")
    assert ending(announced).startswith(b"HTTP/1.1 400 ")
    endless = connect(hurried, POST + "Transfer-Encoding: chunked\n\n")
    with pytest.raises(OSError):
        for _ in range(1000):
            endless.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")
    endless.close()
    header = connect(hurried, f"GET / HTTP/1.1\nX: {'x' * 20_000}")
    assert not ending(header)
    assert hurried.post("env_state").status_code == 200


@pytest.mark.parametrize("kind", SLOW)
def test_many_connections_that_send_no_whole_request_keep_nobody_out(running, kind):
    with contextlib.ExitStack() as opened:
        for _ in range(600):
            opened.enter_context(connect(running, SLOW[kind]))
        begun = time.monotonic()
        running.show_text("honest", "pane", kind)
        assert running.panes("honest")["pane"]["content"] == kind
        assert time.monotonic() - begun < 5
        count = len(os.listdir(f"/proc/{running.process.pid}/fd"))
        assert count < 300


UPGRADE = (
    "GET /socket HTTP/1.1\nHost: localhost:{port}\nConnection: Upgrade\nUpgrade: websocket\n"
    f"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\n\n"
)


@pytest.mark.parametrize("path", ["socket", "vis_socket"])
def test_pages_that_are_gone_at_once_keep_nobody_out(running, path):
    for _ in range(30):
        connect(running, UPGRADE.replace("socket", path, 1)).close()
        with connect(running, UPGRADE.replace("socket", path, 1)) as page:
            page.recv(12)  # and gone
    with connect(running, UPGRADE) as page:
        text = page.recv(12)
        assert text == b"HTTP/1.1 101"
        running.show_text("main", "pane", f"for the one that stays, {path}")
        while f"for the one that stays, {path}".encode() not in text:
            text += page.recv(4096)


def test_pages_beyond_the_limit_are_closed_and_the_others_stay(running):
    with contextlib.ExitStack() as opened:
        pages = [opened.enter_context(connect(running, UPGRADE)) for _ in range(256)]
        assert all(page.recv(12) == b"HTTP/1.1 101" for page in pages)
        assert all(ending(connect(running, UPGRADE)).startswith(b"HTTP/1.1 101") for _ in range(3))
        for _ in range(300):
            opened.enter_context(connect(running))
        running.show_text("main", "pane", "for all pages")
        for page in (pages[0], pages[255]):
            text = b""
            while b"for all pages" not in text:
                text += page.recv(4096)


def test_names_of_environments_lead_nowhere_else(start, tmp_path):
    """visdom's own server deletes the file of every environment that it was told of."""
    process = start(tmp_path / "inner" / "state")
    (tmp_path / "kept.json").write_text("{}")
    for name in ("../../kept", str(tmp_path / "kept"), "a\0b", "a\\b"):
        assert process.post("env/main", eid=name).status_code == 400
        assert process.post("delete_env", eid=name).status_code == 500
    assert process.post("env_state").json() == ["main"]
    assert (tmp_path / "kept.json").exists()


def test_refused_names_are_printed_with_escapes(start, tmp_path):
    process = start(tmp_path)
    refused = "GET / HTTP/1.1\nHost: localhost\nOrigin: http://evil\x9b31m\n\n"
    with connect(process, refused) as connection:
        assert connection.recv(12) == b"HTTP/1.1 403"
    wait_for(lambda: "evil\\xc2\\x9b31m" in process.lines[-1])
    assert process.lines[-1].isprintable()


# State on disk.


def test_shows_at_the_next_start_what_it_showed(start, tmp_path):
    """However it ended: killed (then what was saved last), by Ctrl-C, by SIGTERM."""
    code = (
        "from pathlib import Path; from script.dashboard.server import serve; "
        "serve({port}, env_path=Path({env_path!r}), save_seconds=0.1, "
        "say=lambda text: print(text, flush=True))"
    )
    process = start(tmp_path, code=code)
    for content in ("0.5", "0.25"):  # a new pane, then a change of it
        process.show_text("my run", "losses", content)
        wait_for(lambda content=content: content in read_text(tmp_path / "my run.json"))
    process.kill()

    process = start(tmp_path)
    assert process.panes("my run")["losses"]["content"] == "0.25"
    assert get(process.url).headers["Location"] == "/env/my%20run"
    process.show_text("my run", "losses", "0.125")
    assert process.end(signal.SIGINT) == 0
    assert "state saved" in process.lines[-1]

    process = start(tmp_path)
    assert process.panes("my run")["losses"]["content"] == "0.125"
    process.show_text("my run", "losses", "0.0625")
    assert process.end(signal.SIGTERM) == 0
    assert "0.0625" in read_text(tmp_path / "my run.json")


def read_text(path):
    return path.read_text() if path.exists() else ""


def test_front_page_is_the_environment_that_changed_last(running):
    for name in ("b", "a", "b"):
        running.show_text(name, "pane", f"text of {name}")
        assert get(running.url).headers["Location"] == f"/env/{name}"


def test_file_that_is_no_environment_is_renamed(tmp_path):
    good = json.dumps({"jsons": {}, "reload": {}})
    bad = {
        "half": '{"jsons": {"a"',
        "null": "null",
        "panes": '{"jsons": {"a": "text"}, "reload": {}}',
        "deep": '{"jsons": {"a": ' + "[" * 2000 + "]" * 2000 + '}, "reload": {}}',
    }
    for name, text in {**bad, "good": good}.items():
        (tmp_path / f"{name}.json").write_text(text)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "half.unreadable").write_text("an earlier one")
    said = []
    prepare_folder(tmp_path, said.append)
    names = {path.name for path in tmp_path.iterdir()}
    asides = {f"{name}.unreadable{'1' * (name == 'half')}" for name in (*bad, "pipe")}
    assert names == {"good.json", "view", "half.unreadable", *asides}
    assert (tmp_path / "half.unreadable").read_text() == "an earlier one"
    assert len(said) == 5
    for aside in asides:
        assert sum(aside in line and aside.split(".")[0] + ".json" in line for line in said) == 1


def environment(content="x"):
    return {"jsons": {"pane": {"contentID": content, "content": content}}, "reload": {}}


def test_only_environments_that_changed_are_written(tmp_path):
    state = {"old": environment(), "run": environment()}
    files = EnvironmentFiles(tmp_path)
    files.watch(state)
    files.save()
    assert not list(tmp_path.iterdir())
    state["run"]["jsons"]["pane"] = environment("y")["jsons"]["pane"]
    files.save()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text()) == state["run"]
    state["run"]["reload"]["pane"] = {"x": 1}  # moved by the user
    files.save()
    assert json.loads((tmp_path / "run.json").read_text()) == state["run"]
    del state["run"]
    (tmp_path / "run.json").unlink()
    files.save()
    state["run"] = environment("y")  # as before it was deleted
    files.save()
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("content", [float("nan"), "x" * 2000])
def test_what_could_not_be_read_again_is_not_saved(tmp_path, monkeypatch, content):
    monkeypatch.setattr(dashboard_server, "LARGEST_FILE", 1000)
    said = []
    files = EnvironmentFiles(tmp_path, said.append)
    state = {"run": environment()}
    files.watch(state)
    state["run"]["jsons"]["pane"] = environment("y")["jsons"]["pane"]
    files.save()
    kept = (tmp_path / "run.json").read_text()
    state["run"]["jsons"]["pane"] = environment(content)["jsons"]["pane"]
    files.save()
    assert (tmp_path / "run.json").read_text() == kept
    assert len(said) == 1 and "'run' cannot be saved" in said[0]


def test_newest_is_known_after_a_restart(tmp_path):
    files = EnvironmentFiles(tmp_path)
    state = {}
    files.watch(state)
    assert files.newest() is None
    for name in ("a", "c", "b"):
        state[name] = environment()
        assert files.newest() == name
    files.save()
    state["empty"] = {"jsons": {}, "reload": {}}
    again = EnvironmentFiles(tmp_path)
    again.watch({name: state[name] for name in ("c", "b", "empty", "a")})
    assert again.newest() == "b"


def test_names_stay_in_the_folder(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    files = EnvironmentFiles(folder)
    state = {}
    files.watch(state)
    state["../outside"] = environment()
    files.save()
    assert [path.name for path in folder.iterdir()] == [".._outside.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_state_that_cannot_be_saved_is_said_once_and_tried_again(tmp_path):
    said = []
    folder = tmp_path / "gone"
    files = EnvironmentFiles(folder, said.append)
    state = {}
    files.watch(state)
    state["run"] = environment()
    files.save()
    files.save()
    assert len(said) == 1 and "'run' cannot be saved" in said[0]
    folder.mkdir()
    files.save()
    assert (folder / "run.json").exists()


# The files of the page.


def test_list_of_files_is_that_of_visdom():
    """visdom's page and visdom's own download name the same files."""
    names = {name for package in PACKAGES for name in package.files.values()}
    assert len(names) == 29
    source = (static_folder().parent / "server/build.py").read_text()
    mathjax = [name for name in names if "mathjax" in name]
    for name in names - set(mathjax):
        assert f'"{name.split("/", 1)[1]}"' in source, name
    for name in mathjax:
        assert f'"{name.removeprefix("js/mathjax/2.7.5/")}?' in source, name
    for package in PACKAGES:
        assert len(base64.b64decode(package.sha512)) == 64


def test_missing_files_without_any_way_to_get_them(tmp_path, monkeypatch):
    packages = copy_visdom(tmp_path / "packages", is_complete=False)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm
    options = (f"--port={free_port()}", f"--env_path={tmp_path / 'state'}")
    process = run_python("-m", "script.dashboard", *options, timeout=60)
    static = packages / "visdom/static"
    assert_one_line_error(
        process, "29 files", str(static), "no npm on PATH", "no network", "--assets=npm"
    )
    assert "js/jquery.min.js" in process.stdout
    assert not (tmp_path / "state").exists()


def test_visdom_not_installed(monkeypatch):
    monkeypatch.setattr(dashboard_assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"visdom is not installed.*setup\.sh"):
        static_folder()


def write_all(folder):
    for package in PACKAGES:
        for name in package.files.values():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("/* content */")


def test_nothing_is_got_when_nothing_is_missing(tmp_path, monkeypatch):
    write_all(tmp_path)
    monkeypatch.setattr(dashboard_assets, "_run", pytest.fail)
    ensure_assets(tmp_path, "auto", pytest.fail)
    ensure_assets(tmp_path, "npm", pytest.fail)


@pytest.mark.parametrize("content", ["", "<!DOCTYPE html><title>403</title>"])
def test_what_a_failed_download_leaves_counts_as_missing(tmp_path, content):
    write_all(tmp_path)
    (tmp_path / "js/d3.v3.min.js").write_text(content)
    assert missing_assets(tmp_path) == ["js/d3.v3.min.js"]


def test_folder_that_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match=r"is not writable.*--assets=npm --setup_only"):
        ensure_assets(tmp_path, "npm")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stub of npm on PATH which gives the archives of its folder, and two small packages."""
    archives = tmp_path / "archives"
    archives.mkdir()
    small = []
    for name, files in {
        "one": {"a.js": "js/a.js", "b.css": "css/b.css"},
        "two": {"c": "d"},
    }.items():
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as archive:
            for member in files:
                text = f"content of {member}".encode()
                info = tarfile.TarInfo(f"package/{member}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
        (archives / f"{name}-1.0.0.tgz").write_bytes(content.getvalue())
        digest = base64.b64encode(hashlib.sha512(content.getvalue()).digest()).decode()
        small.append(Package(name, "1.0.0", digest, files))
    monkeypatch.setattr(dashboard_assets, "PACKAGES", tuple(small))
    program = tmp_path / "bin/npm"
    program.parent.mkdir()
    set_npm(program, f'echo "$@" >"{tmp_path}/asked"; cp "{archives}"/*.tgz .')
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    static = tmp_path / "visdom/static"
    static.mkdir(parents=True)
    (static.parent / "VERSION").write_text("0.2.4\n")
    return program, archives, static


def set_npm(program, commands):
    program.write_text(f"#!/bin/sh\n{commands}\n")
    program.chmod(0o755)


def test_files_come_from_npm_packages(npm, tmp_path):
    _, _, static = npm
    ensure_assets(static, "npm")
    assert (static / "js/a.js").read_text() == "content of a.js"
    assert (static / "d").read_text() == "content of c"
    assert (static / "version.built").read_text() == "0.2.4"  # visdom's own command is content
    assert len([path for path in static.rglob("*") if path.is_file()]) == 4
    assert (tmp_path / "asked").read_text().split()[-2:] == ["one@1.0.0", "two@1.0.0"]


def test_package_with_another_hash_is_refused(npm):
    _, archives, static = npm
    (archives / "two-1.0.0.tgz").write_bytes((archives / "one-1.0.0.tgz").read_bytes())
    with pytest.raises(UserError, match=r"two-1\.0\.0\.tgz is not the package expected"):
        get_with_npm(static)
    assert not list(static.iterdir())


def test_npm_that_fails_is_one_message(npm):
    program, _, static = npm
    set_npm(program, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(UserError, match="npm error code ENOTFOUND") as raised:
        ensure_assets(static, "npm")
    assert "\n" not in str(raised.value)
    assert "visdom's own" not in str(raised.value)  # was not asked for


def test_downloads_that_hang_are_ended(npm, tmp_path, monkeypatch):
    program, _, static = npm
    set_npm(program, "exec sleep 60")
    packages = copy_visdom(
        tmp_path / "slow", is_complete=False, download="__import__('time').sleep(60)"
    )
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setattr(dashboard_assets, "NPM_SECONDS", 0.2)
    monkeypatch.setattr(dashboard_assets, "VISDOM_SECONDS", 0.5)
    with pytest.raises(
        UserError, match=r"npm: not finished after 0\.2 s.*not finished after 0\.5 s"
    ):
        ensure_assets(static, "auto")


@pytest.mark.parametrize("names", [["js/a.js", "css/b.css", "d"], ["js/a.js", "d"]])
def test_visdoms_own_download_where_there_is_no_npm(npm, tmp_path, monkeypatch, names):
    _, _, static = npm
    monkeypatch.setenv("PATH", str(tmp_path))
    # As visdom's, it says "built" whether or not everything arrived.
    download = (
        f"import pathlib; s = pathlib.Path({str(static)!r}); (s / 'js').mkdir(); "
        f"(s / 'css').mkdir(); [(s / n).write_text('x') for n in [*{names}, 'version.built']]"
    )
    packages = copy_visdom(tmp_path / "full", is_complete=False, download=download)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    said = []
    if "css/b.css" in names:
        ensure_assets(static, "auto", said.append)
        assert not missing_assets(static) and (static / "version.built").exists()
    else:
        with pytest.raises(UserError, match=r"1 files did not arrive, such as css/b\.css"):
            ensure_assets(static, "auto", said.append)
        assert not (static / "version.built").exists()
    assert len(said) == 1

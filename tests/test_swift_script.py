"""Where Swift comes from: swift.sh and `make test-swift`, with every tool that they call put in its place."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SCRIPT = REPOSITORY / "apps/ios-demo/swift.sh"
REAL = ("bash", "cat", "dirname", "env", "flock", "ls", "make", "mkdir", "mv", "rm", "sh", "sleep", "touch", "true")


class Machine:
    """A PATH with the tools that are named here and no others, and what they did."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.toolchain, self.log = folder / "bin", folder / "cache/swift", folder / "log"
        self.bin.mkdir()
        for name in REAL:
            (self.bin / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name} here"))
        self.tool("uname", "echo Linux")
        self.tool("id", "echo 0")
        self.tool("apt-get", "exit 1")
        # What these would do needs root; the rest of the command line is run, or noted.
        self.tool("unshare", 'shift 3; exec "$@"')
        self.tool("mount", ":")
        self.tool("chroot", f'echo "chroot $*" >> {self.log}')

    def tool(self, name: str, script: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!{self.bin}/bash\n{script}\n")
        path.chmod(0o755)

    def debootstrap(self, script: str) -> None:
        self.tool("debootstrap", f'echo debootstrap >> {self.log}\ntarget="${{@: -1}}"\n{script}')

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        variables = {"PATH": str(self.bin), "HOME": "/nowhere", "EDGE_DISTIL_SWIFT": str(self.toolchain), **environment}
        return subprocess.Popen(
            command, env=variables, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*command, **environment)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    @property
    def called(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_swift_that_is_there_is_run_in_the_package_with_the_arguments_given(machine):
    machine.tool("swift", 'echo "$PWD: $*"; exit 3')
    ran = machine.run(str(SCRIPT), "test", "--filter", "a b")
    assert ran.returncode == 3
    assert ran.stdout == f"{SCRIPT.parent}: test --filter a b\n"


def test_another_tool_of_the_toolchain_is_run_by_its_name(machine):
    machine.tool("plutil", 'echo "plutil $*"')
    assert machine.run(str(SCRIPT), "--tool", "plutil", "-lint", "x").stdout == "plutil -lint x\n"
    named = machine.run(str(SCRIPT), "--tool")
    assert named.returncode != 0
    assert "--tool needs the name of a tool" in named.stderr


@pytest.mark.parametrize(
    ("tool", "script", "said"),
    [
        ("uname", "echo Darwin", "install Xcode or a toolchain"),
        ("id", "echo 1000", "run this as root"),
        ("unshare", "exit 1", "does not let root mount"),
        ("apt-get", None, "this is no Debian"),
        ("apt-get", "exit 100", "debootstrap cannot be installed"),
    ],
)
def test_where_no_swift_can_be_had_it_ends_with_69_and_says_why(machine, tool, script, said):
    if script is None:
        (machine.bin / tool).unlink()
    else:
        machine.tool(tool, script)
    ran = machine.run(str(SCRIPT), "test")
    assert ran.returncode == 69
    assert ran.stderr.splitlines()[-1].startswith("no Swift here: ")
    assert said in ran.stderr
    assert machine.called == []


def test_the_toolchain_is_fetched_once_and_entered_from_then_on(machine):
    machine.debootstrap('mkdir -p "$target/proc"; touch "$target/swift"')
    for _ in range(2):
        assert machine.run(str(SCRIPT), "test", "-v").returncode == 0
    first, *entered = machine.called
    assert first == "debootstrap"
    assert len(entered) == 2
    assert all(line.startswith(f"chroot {machine.toolchain} env --chdir=/src") for line in entered)
    assert all(line.endswith(" swift test -v") for line in entered)
    assert (machine.toolchain / "swift").exists()


def test_of_two_at_once_one_fetches_and_the_other_waits(machine):
    machine.debootstrap('mkdir "$target" || exit 1; sleep 1')
    both = [machine.start(str(SCRIPT), "test") for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    for process in both:
        process.communicate()
    assert machine.called.count("debootstrap") == 1
    assert len(machine.called) == 3


def test_a_fetch_that_failed_or_was_killed_leaves_nothing_that_is_taken_for_a_toolchain(machine):
    machine.debootstrap('mkdir "$target"; touch "$target/half"; exit 1')
    failed = machine.run(str(SCRIPT), "test")
    assert failed.returncode == 69
    assert "debootstrap failed" in failed.stderr
    assert not machine.toolchain.exists()
    assert not machine.toolchain.with_name("swift.partial").exists()

    # Killed: nothing is cleared up until the next time.
    machine.debootstrap('mkdir "$target"; touch "$target/half"; kill -9 $PPID')
    assert machine.run(str(SCRIPT), "test").returncode == -9
    assert not machine.toolchain.exists()
    machine.debootstrap('mkdir "$target" && touch "$target/whole"')
    assert machine.run(str(SCRIPT), "test").returncode == 0
    assert sorted(path.name for path in machine.toolchain.iterdir()) == ["ready", "src", "whole"]


def test_a_folder_that_holds_something_else_is_left_alone(machine):
    machine.debootstrap('mkdir "$target"')
    machine.toolchain.mkdir(parents=True)
    (machine.toolchain / "thesis.tex").write_text("years of work")
    ran = machine.run(str(SCRIPT), "test")
    assert ran.returncode == 69
    assert "holds something else" in ran.stderr
    assert (machine.toolchain / "thesis.tex").read_text() == "years of work"
    assert machine.called == []


def test_make_skips_where_there_is_no_swift_and_fails_in_ci(machine):
    machine.tool("uname", "echo Darwin")
    skipped = machine.run("make", "--no-print-directory", "test-swift")
    assert skipped.returncode == 0
    assert skipped.stdout == "the Swift kit was not tested\n"
    assert "install Xcode or a toolchain" in skipped.stderr
    assert machine.run("make", "test-swift", CI="1").returncode != 0


def test_make_fails_where_a_test_fails(machine):
    machine.tool("swift", "exit 1")
    assert machine.run("make", "test-swift").returncode != 0
    machine.tool("swift", "exit 0")
    assert machine.run("make", "test-swift", CI="1").returncode == 0


def test_the_whole_check_asks_for_swift_as_ci_does():
    lines = (REPOSITORY / ".ci/run").read_text().splitlines()
    assert lines.index("export CI=1") < lines.index("make test-swift")
    assert os.access(SCRIPT, os.X_OK)

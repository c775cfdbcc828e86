"""The demo app, as far as it can be held to account without Xcode: its project file, its sources, its resources."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

REPOSITORY = Path(__file__).parent.parent
IOS = REPOSITORY / "apps/ios-demo"
APP = IOS / "App"
SOURCES = APP / "EdgeDistilDemo"
PROJECT = APP / "EdgeDistilDemo.xcodeproj"
# What the kit is there for has no place in the app: no Core ML, no Foundation of its own.
IMPORTS = {"Accessibility", "Charts", "EdgeDistilKit", "SwiftUI", "UniformTypeIdentifiers"}


# The project file: a property list of the old style, which only Apple's tools read by themselves.


class PropertyList:
    """`{a = b; c = (d, "e f");}` as dictionaries, lists and strings. A key that is given twice is an error."""

    TOKEN = re.compile(
        r'\s+|//[^\n]*|/\*.*?\*/|(?P<string>"(?:\\.|[^"\\])*")|(?P<word>[\w./$:-]+)|(?P<mark>[{}()=;,])', re.S
    )

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        position = 0
        while position < len(text):
            match = self.TOKEN.match(text, position)
            if match is None:
                raise ValueError(f"line {text.count(chr(10), 0, position) + 1}: unexpected {text[position]!r}")
            if match.lastgroup:
                self.tokens.append(match.group())
            position = match.end()
        self.at = 0

    def parse(self) -> Any:
        value = self.value()
        if self.at != len(self.tokens):
            raise ValueError(f"unexpected {self.tokens[self.at]!r} after the end")
        return value

    def take(self, expected: str = "") -> str:
        token = self.tokens[self.at] if self.at < len(self.tokens) else "the end"
        if expected and token != expected:
            raise ValueError(f"{token!r} instead of {expected!r}, after {' '.join(self.tokens[self.at - 6 : self.at])}")
        self.at += 1
        return token

    def value(self) -> Any:
        token = self.take()
        if token == "{":
            table: dict[str, Any] = {}
            while self.tokens[self.at] != "}":
                key = self.value()
                if key in table:
                    raise ValueError(f"{key!r} is given twice")
                self.take("=")
                table[key] = self.value()
                self.take(";")
            self.take("}")
            return table
        if token == "(":
            items = []
            while self.tokens[self.at] != ")":
                items.append(self.value())
                if self.tokens[self.at] != ")":
                    self.take(",")
            self.take(")")
            return items
        if token in "})=;,":
            raise ValueError(f"unexpected {token!r}")
        return re.sub(r"\\(.)", r"\1", token[1:-1]) if token.startswith('"') else token


def test_property_lists_are_read_and_broken_ones_refused() -> None:
    text = '// c\n{ a = (b, "c \\"d\\"", ); /* e */ "f g" = { }; }'
    assert PropertyList(text).parse() == {"a": ["b", 'c "d"'], "f g": {}}
    for broken, said in (
        ("{ a = b }", "instead of ';'"),
        ("{ a = b; a = c; }", "'a' is given twice"),
        ("{ a = (b c); }", "instead of ','"),
        ("{ a = b; } c", "after the end"),
        ("{ a = @; }", "line 1: unexpected '@'"),
    ):
        with pytest.raises(ValueError, match=said):
            PropertyList(broken).parse()


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return PropertyList((PROJECT / "project.pbxproj").read_text(encoding="utf-8")).parse()


@pytest.fixture(scope="module")
def objects(project: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return project["objects"]


def of_kind(objects: dict[str, dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {key: entry for key, entry in objects.items() if entry["isa"] == kind}


def the(objects: dict[str, dict[str, Any]], kind: str) -> dict[str, Any]:
    (entry,) = of_kind(objects, kind).values()
    return entry


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    return [text for part in value for text in strings(part)] if isinstance(value, list) else [value]


def test_every_id_is_defined_and_used(project: dict[str, Any], objects: dict[str, dict[str, Any]]) -> None:
    # Ids defined twice are refused by the parser.
    assert all(re.fullmatch("[0-9A-F]{24}", key) for key in objects)
    used = {text for entry in objects.values() for text in strings(entry) if re.fullmatch("[0-9A-F]{24}", text)}
    used.add(project["rootObject"])
    assert used - objects.keys() == set(), "ids that lead nowhere"
    assert objects.keys() - used == set(), "objects that nothing names"
    assert objects[project["rootObject"]]["isa"] == "PBXProject"


def paths(objects: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """Where each file reference leads, by its id, through the groups from the main one."""
    found: dict[str, Path] = {}

    def walk(key: str, folder: Path) -> None:
        entry = objects[key]
        if entry.get("sourceTree") != "<group>":
            return
        path = folder / entry["path"] if "path" in entry else folder
        if entry["isa"] == "PBXGroup":
            for child in entry["children"]:
                walk(child, path)
        else:
            assert key not in found, f"{path} is in two groups"
            found[key] = path

    walk(the(objects, "PBXProject")["mainGroup"], APP)
    return found


def in_phase(objects: dict[str, dict[str, Any]], kind: str) -> list[Path]:
    files = paths(objects)
    return [files[objects[build_file]["fileRef"]] for build_file in the(objects, kind)["files"]]


def test_every_file_that_the_project_names_exists(objects: dict[str, dict[str, Any]]) -> None:
    files = paths(objects)
    made = {key for key, entry in of_kind(objects, "PBXFileReference").items() if entry["sourceTree"] != "<group>"}
    assert made == {the(objects, "PBXNativeTarget")["productReference"]}
    assert files.keys() == of_kind(objects, "PBXFileReference").keys() - made
    assert [str(path) for path in files.values() if not path.exists()] == []
    folders = {key for key, entry in objects.items() if entry.get("lastKnownFileType", "").startswith("folder")}
    assert all(files[key].is_dir() == (key in folders) for key in files)


def test_every_source_is_compiled_once_and_every_resource_copied_once(objects: dict[str, dict[str, Any]]) -> None:
    compiled, copied = in_phase(objects, "PBXSourcesBuildPhase"), in_phase(objects, "PBXResourcesBuildPhase")
    assert Counter(compiled) == Counter(SOURCES.rglob("*.swift"))
    others = [path for path in SOURCES.iterdir() if path.suffix != ".swift" and not path.name.startswith(".")]
    assert Counter(copied) == Counter(others)
    # A folder reference keeps its structure: a group would put all models' config.json into one place.
    (bundled,) = [key for key, path in paths(objects).items() if path == SOURCES / "Bundled"]
    assert objects[bundled]["isa"] == "PBXFileReference"
    assert objects[bundled]["lastKnownFileType"] == "folder"


def test_the_kit_is_linked_from_the_package_beside_the_app(objects: dict[str, dict[str, Any]]) -> None:
    package = the(objects, "XCLocalSwiftPackageReference")
    manifest = (APP / package["relativePath"] / "Package.swift").read_text(encoding="utf-8")
    product = the(objects, "XCSwiftPackageProductDependency")["productName"]
    assert f'.library(name: "{product}"' in manifest
    linked = [objects[key]["productRef"] for key in the(objects, "PBXFrameworksBuildPhase")["files"]]
    assert linked == the(objects, "PBXNativeTarget")["packageProductDependencies"]
    assert linked == list(of_kind(objects, "XCSwiftPackageProductDependency"))
    assert ".iOS(.v17)" in manifest


def test_settings_of_the_target(objects: dict[str, dict[str, Any]]) -> None:
    target, root = the(objects, "PBXNativeTarget"), the(objects, "PBXProject")

    def settings(owner: dict[str, Any]) -> dict[str, dict[str, Any]]:
        configurations = objects[owner["buildConfigurationList"]]["buildConfigurations"]
        return {objects[key]["name"]: objects[key]["buildSettings"] for key in configurations}

    assert settings(target).keys() == settings(root).keys() == {"Debug", "Release"}
    for name in ("Debug", "Release"):
        merged = settings(root)[name] | settings(target)[name]
        assert merged["IPHONEOS_DEPLOYMENT_TARGET"] == "17.0"
        assert merged["TARGETED_DEVICE_FAMILY"] == "1,2", "iPhone and iPad"
        assert re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", merged["PRODUCT_BUNDLE_IDENTIFIER"])
        assert merged["SWIFT_VERSION"] == "5.0"
        assert merged["CODE_SIGN_STYLE"] == "Automatic"
        # Whose team signs it is nobody else's business.
        assert merged["DEVELOPMENT_TEAM"] == ""
        assert merged["GENERATE_INFOPLIST_FILE"] == "YES"
        for key in ("CFBundleDisplayName", "LSApplicationCategoryType", "ITSAppUsesNonExemptEncryption"):
            assert merged[f"INFOPLIST_KEY_{key}"]
        for key in ("UIApplicationSceneManifest_Generation", "UILaunchScreen_Generation"):
            assert merged[f"INFOPLIST_KEY_{key}"] == "YES"
        # An iPad app that shares the screen has to turn all ways.
        orientations = merged["INFOPLIST_KEY_UISupportedInterfaceOrientations_iPad"].split()
        assert len(orientations) == 4
        for key, folder in (
            ("ASSETCATALOG_COMPILER_APPICON_NAME", "appiconset"),
            ("ASSETCATALOG_COMPILER_GLOBAL_ACCENT_COLOR_NAME", "colorset"),
        ):
            assert (SOURCES / "Assets.xcassets" / f"{merged[key]}.{folder}").is_dir()


def test_version_is_the_toolkits(objects: dict[str, dict[str, Any]]) -> None:
    version = re.search(r'^version = "(.*)"$', (REPOSITORY / "pyproject.toml").read_text(), re.M)
    kit = re.search(r'let kitVersion = "(.*)"', (IOS / "Sources/EdgeDistilKit/Study/LatencyStudy.swift").read_text())
    assert version is not None
    assert kit is not None
    assert kit[1] == version[1]
    for entry in of_kind(objects, "XCBuildConfiguration").values():
        assert entry["buildSettings"].get("MARKETING_VERSION", version[1]) == version[1]


def test_shared_scheme_builds_the_target_and_runs_it_optimised(objects: dict[str, dict[str, Any]]) -> None:
    (path,) = (PROJECT / "xcshareddata/xcschemes").glob("*.xcscheme")
    scheme = ElementTree.parse(path).getroot()
    references = list(scheme.iter("BuildableReference"))
    (target,) = of_kind(objects, "PBXNativeTarget")
    assert {reference.get("BlueprintIdentifier") for reference in references} == {target}
    assert {reference.get("ReferencedContainer") for reference in references} == {f"container:{PROJECT.name}"}
    launch = scheme.find("LaunchAction")
    # A study of a debug build would time the lack of optimisation.
    assert launch is not None
    assert launch.get("buildConfiguration") == "Release"
    workspace = ElementTree.parse(PROJECT / "project.xcworkspace/contents.xcworkspacedata")
    assert [entry.get("location") for entry in workspace.iter("FileRef")] == ["self:"]


# Resources


def test_asset_catalogue_has_the_files_and_colours_that_are_named() -> None:
    catalogue = SOURCES / "Assets.xcassets"
    for folder in (catalogue, *(path for path in catalogue.iterdir() if path.is_dir())):
        contents = json.loads((folder / "Contents.json").read_text())
        assert contents["info"]["version"] == 1
        named = {image["filename"] for image in contents.get("images", [])}
        assert named == {path.name for path in folder.iterdir() if path.is_file()} - {"Contents.json"}
        if folder.suffix == ".colorset":
            values = [{"luminosity": "any"}, {"luminosity": "dark"}]
            told = [
                {entry["appearance"]: entry["value"] for entry in colour.get("appearances", [])} or values[0]
                for colour in contents["colors"]
            ]
            assert told == values, "a colour for light and one for dark"
    named = {name for path in SOURCES.glob("*.swift") for name in re.findall(r'Color\("(\w+)"\)', path.read_text())}
    assert named <= {path.stem for path in catalogue.glob("*.colorset")}
    icon = (catalogue / "AppIcon.appiconset/icon.png").read_bytes()
    # Width, height, 8 bits, RGB: an icon with an alpha channel is refused by the App Store.
    assert icon[16:26] == (1024).to_bytes(4, "big") * 2 + bytes([8, 2])
    assert len(icon) < 50_000


def test_sample_passages_have_questions_and_no_title_twice() -> None:
    passages = json.loads((SOURCES / "Bundled/passages.json").read_text(encoding="utf-8"))
    assert 6 <= len(passages) <= 12
    assert len({passage["title"] for passage in passages}) == len(passages)
    for passage in passages:
        assert passage.keys() == {"title", "text", "questions"}
        assert passage["text"] == passage["text"].strip() != ""
        assert len(set(passage["questions"])) == len(passage["questions"]) >= 3
    # One is longer than a window, so that the app is seen to read all of it.
    assert max(len(passage["text"].split()) for passage in passages) > 384


def test_bundled_models_are_kept_out_of_git(tmp_path: Path) -> None:
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("no git checkout here")
    ignored = ["Bundled/Models/student/edge_distil.json", "Bundled/Models/student/model.mlpackage/Manifest.json"]
    kept = ["Bundled/passages.json", "Bundled/Models/README.md"]
    for name in ignored + kept:
        status = subprocess.run([git, "check-ignore", "--quiet", str(SOURCES / name)], cwd=REPOSITORY).returncode
        assert status == (0 if name in ignored else 1), name


# Sources


def code(path: Path) -> str:
    """A Swift file without its comments."""
    return re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    found = {path.name: code(path) for path in sorted(SOURCES.glob("*.swift"))}
    assert len(found) > 10
    return found


def test_app_holds_views_and_nothing_that_the_kit_could_hold(sources: dict[str, str]) -> None:
    for name, text in sources.items():
        imported = set(re.findall(r"^(?:@\w+ )?import (?:\w+ )?(\w+)", text, re.M))
        assert imported <= IMPORTS, f"{name} imports {imported - IMPORTS}"
        # State that is not a view's, work off the main thread, arithmetic and files are the kit's.
        for found in re.findall(r"\b(?:class|actor|extension|protocol)\s+\w+", text):
            pytest.fail(f"{name}: `{found}` belongs in the kit, where it is tested")
        for declared, conforms in re.findall(r"\b(?:struct|enum)\s+(\w+)\s*:\s*([\w, ]+)", text):
            assert conforms.strip() in {"View", "App", "Hashable"}, f"{name}: {declared} is no view"
        assert re.findall(r"\b(?:struct|enum)\s+(\w+)\s*\{", text) == [], f"{name}: a type that is no view"
        calls = (
            r"\b(?:FileManager|JSONDecoder|JSONEncoder|DispatchQueue|UserDefaults|MLModel|URLSession|Data)\b|"
            r"\.detached\b"
        )
        assert re.findall(calls, text) == [], f"{name}: work of the kit's"
        words = re.sub(r'"""\n.*?"""|"(?:\\.|[^"\\])*"', "", text, flags=re.S)
        assert re.findall(r"\b(?:for|while|repeat|do|catch|try)\b(?!:)", words) == [], f"{name}: a loop or a recovery"
        assert len(text.splitlines()) <= 120, f"{name} is no small view"


def test_text_follows_the_readers_size(sources: dict[str, str]) -> None:
    for name, text in sources.items():
        assert re.findall(r"\.system\(size|\.custom\(|minimumScaleFactor", text) == [], f"{name}: a fixed font size"
        fixed = re.findall(r"\.(?:frame|padding|offset)\([^)]*\b\d+(?:\.\d+)?\s*[,)]", text)
        assert fixed == [], f"{name}: a length in points that does not scale: {fixed}"


def test_icon_buttons_have_words_for_voiceover(sources: dict[str, str]) -> None:
    for name, text in sources.items():
        for images in re.findall(r"Image\(systemName[^\n]*", text):
            assert "icon:" in text or "accessibility" in images, f"{name}: {images} says nothing to VoiceOver"


# With Swift


def swift(*arguments: str) -> str:
    """What swift.sh prints. Without any Swift, fails in CI and skips elsewhere, as `make test-swift` does."""
    result = subprocess.run([str(IOS / "swift.sh"), *arguments], capture_output=True, text=True, timeout=900)
    if result.returncode == 69:
        if os.environ.get("CI"):
            pytest.fail(result.stderr)
        pytest.skip(result.stderr.strip().splitlines()[-1])
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def swift_is_here() -> None:
    if not os.environ.get("CI") and not shutil.which("swift") and not toolchain().exists():
        # A person's test run does not fetch 3.3 GB by the way: `make test-swift` does.
        pytest.skip("no Swift here yet: make test-swift fetches it")


def toolchain() -> Path:
    return Path(os.environ.get("EDGE_DISTIL_SWIFT", Path.home() / ".cache/edge-distil/swift")) / "ready"


def test_plutil_reads_the_property_lists() -> None:
    swift_is_here()
    for path in (PROJECT / "project.pbxproj", SOURCES / "PrivacyInfo.xcprivacy"):
        name = str(path.relative_to(IOS))
        # On Linux it takes files after a `--` alone, and ends with 0 whatever it finds.
        assert swift("--tool", "plutil", "-lint", "--", name).strip() == f"{name}: OK"


def test_every_source_parses() -> None:
    swift_is_here()
    names = [str(path.relative_to(IOS)) for path in sorted(SOURCES.glob("*.swift"))]
    assert swift("--tool", "swiftc", "-parse", *names) == ""


# Names of values in the app's sources, and the kit's types that they have.
VALUES = {
    "reader": "ReaderModel",
    "study": "StudyModel",
    "catalog": "CatalogModel",
    "contents": "CatalogModel.Contents",
    "reply": "ReaderModel.Reply",
    "answered": "Answered",
    "answer": "Answer",
    "paragraph": "Paragraph",
    "passage": "Passage",
    "problem": "Problem",
    "result": "StudyResult",
    "row": "StudyRow",
    "files": "StudyModel.Files",
    "part": "TimingPart",
    "units": "ComputeUnits",
    "target": "Paragraph",
    "ComputeUnits": "ComputeUnits",
    "CatalogModel": "CatalogModel",
    "StudyRow": "StudyRow",
}
# Those of a protocol or of the standard library, which the kit's own symbols do not have.
INHERITED = {
    "allCases",
    "rawValue",
    "isEmpty",
    "first",
    "count",
    "indices",
    "map",
    "Contents",
    "State",
    "Reply",
    "Files",
}


class Kit:
    """The kit's public symbols, from the graph that the compiler writes of it."""

    def __init__(self, graph: dict[str, Any]) -> None:
        self.members: dict[str, dict[str, str | None]] = {}
        for symbol in graph["symbols"]:
            *parents, name = symbol["pathComponents"]
            fragments = symbol.get("declarationFragments", [])
            spelled = "".join(fragment["spelling"] for fragment in fragments)
            typed = re.search(r":\s*([\w.]+)\??(?:\s*\{.*)?$", spelled)
            self.members.setdefault(".".join(parents), {})[name.partition("(")[0]] = typed[1] if typed else None

    def resolve(self, kind: str, chain: list[str]) -> str | None:
        """What is wrong with `value.a.b`, of a value of a type of the kit; None where nothing is known to be."""
        for name in chain:
            members = self.members.get(kind)
            if members is None or name in INHERITED:
                return None
            if name not in members:
                return f"{kind} has no public member {name!r}"
            following = members[name]
            nested = next((each for each in (f"{kind}.{following}", following) if each in self.members), None)
            if nested is None:
                return None
            kind = nested
        return None


@pytest.fixture(scope="module")
def kit() -> Kit:
    swift_is_here()
    swift("package", "dump-symbol-graph", "--minimum-access-level", "public", "--skip-synthesized-members")
    (path,) = (IOS / ".build").glob("*/symbolgraph/EdgeDistilKit.symbols.json")
    return Kit(json.loads(path.read_text()))


def uses(text: str) -> list[tuple[str, list[str]]]:
    """Every `value.a.b` of a value in `VALUES`."""
    # In words for people, only what stands in `\(…)` is code.
    text = re.sub(r'"((?:\\.|[^"\\])*)"', lambda match: " ".join(re.findall(r"\\\(([^()]*)", match[1])), text)
    found = re.findall(rf"(?<![\w.])\$?({'|'.join(VALUES)})((?:\.\w+)+)", text)
    return [(value, chain.removeprefix(".").split(".")) for value, chain in found]


def test_every_kit_symbol_that_the_app_uses_is_public_in_the_kit(sources: dict[str, str], kit: Kit) -> None:
    checked = [(name, value, chain) for name, text in sources.items() for value, chain in uses(text)]
    assert len(checked) > 80
    faults = [(name, value, chain, kit.resolve(VALUES[value], chain)) for name, value, chain in checked]
    assert [fault for fault in faults if fault[3]] == []
    # The check itself: a member that is not there, at first or second hand, is seen.
    assert kit.resolve("ReaderModel", ["reply", "rest"]) == "ReaderModel.Reply has no public member 'rest'"
    assert kit.resolve("StudyModel", ["makeStudy"]) == "StudyModel has no public member 'makeStudy'"


def test_every_kit_case_that_the_app_tells_apart_is_there(sources: dict[str, str], kit: Kit) -> None:
    for name, kind in (("AnswerPanel.swift", "ReaderModel.State"), ("StudyProgress.swift", "StudyModel.State")):
        cases = set(re.findall(r"case \.(\w+)", sources[name]))
        assert cases == kit.members[kind].keys(), name


def test_documented_example_is_the_one_that_is_compiled() -> None:
    document = (REPOSITORY / "docs/ios.md").read_text(encoding="utf-8")
    example = (IOS / "Tests/EdgeDistilKitTests/DocumentedExample.swift").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```swift\n(.*?)```", document, re.S)
    assert shown in example

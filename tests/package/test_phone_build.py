"""`flet build` with our settings: Flet's own steps, up to the project that Gradle or Xcode build.

No APK or IPA is built here; .github/workflows/mobile.yml builds them.
"""

from __future__ import annotations

import plistlib
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from PIL import Image

from impchat.peers.pairing import Link
from tests.package import flet_build
from tests.package.flet_build import ROOT, Build, Refused

ANDROID = "{http://schemas.android.com/apk/res/android}"
TOOLS = "{http://schemas.android.com/tools}"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def apk(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = flet_build.copy_of_the_project(tmp_path_factory.mktemp("apk") / "impchat")
    return flet_build.prepare(folder, "apk", "--build-number", "100")


@pytest.fixture(scope="module")
def ipa(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = flet_build.copy_of_the_project(tmp_path_factory.mktemp("ipa") / "impchat")
    return flet_build.prepare(folder, "ipa")


def manifest(build: Build) -> ElementTree.Element:
    return ElementTree.parse(build.project / "android/app/src/main/AndroidManifest.xml").getroot()


def info(build: Build) -> dict[str, Any]:
    return plistlib.loads((build.project / "ios/Runner/Info.plist").read_bytes())


def after(words: list[str], option: str) -> list[str]:
    """The values of every `option` in a command."""
    return [words[i + 1] for i, word in enumerate(words) if word == option]


def test_the_manifest_asks_for_the_network_and_the_camera_and_refuses_the_microphone(apk: Build) -> None:
    asked = {p.get(f"{ANDROID}name"): p.get(f"{TOOLS}node") for p in manifest(apk).iter("uses-permission")}
    assert asked == {
        "android.permission.INTERNET": None,
        "android.permission.CAMERA": None,
        "android.permission.RECORD_AUDIO": "remove",
    }
    needed = {f.get(f"{ANDROID}name"): f.get(f"{ANDROID}required") for f in manifest(apk).iter("uses-feature")}
    assert "android.hardware.camera" in needed
    assert set(needed.values()) == {"false"}  # tablets without a camera can install it too


def test_android_neither_backs_up_conversations_nor_allows_unencrypted_connections(apk: Build) -> None:
    [application] = manifest(apk).iter("application")
    assert application.get(f"{ANDROID}label") == "ImpChat"
    assert application.get(f"{ANDROID}allowBackup") == "false"
    assert application.get(f"{ANDROID}usesCleartextTraffic") == "false"


def test_gradle_builds_for_the_processors_that_have_all_wheels(apk: Build) -> None:
    gradle = (apk.project / "android/app/build.gradle.kts").read_text()
    assert 'namespace = "org.impchat.mobile"' in gradle
    assert "val resolvedMinSdk = 24" in gradle
    assert 'excludes += listOf("lib/armeabi-v7a/**")' in gradle
    assert "abiFilters +=" not in gradle  # one APK for each processor
    assert 'getByName("debug")' in gradle  # no key in the repository
    assert "org.gradle.jvmargs=-Xmx" in (apk.project / "android/gradle.properties").read_text()
    assert (apk.project / "pubspec.yaml").read_text().splitlines()[0] == "name: 'impchat'"
    assert after(apk.building, "--target-platform") == ["android-arm64,android-x64"]
    assert "--split-per-abi" in apk.building


def test_name_and_version_come_from_the_project(apk: Build) -> None:
    assert after(apk.building, "--build-name") == [PROJECT["project"]["version"]]
    assert after(apk.building, "--build-number") == ["100"]
    assert apk.values["artifact_name"] == "impchat"


def test_pip_installs_impchat_from_this_folder_and_the_phones_packages(apk: Build) -> None:
    asked = {Requirement(line) for line in after(apk.packaging, "-r") if not line.startswith("-")}
    folder = apk.project.parents[1]
    assert Requirement(f"impchat @ {folder.as_uri()}") in asked
    assert {Requirement(line) for line in PROJECT["project"]["dependencies"]} < asked
    assert {Requirement(line) for line in PROJECT["tool"]["flet"]["android"]["dependencies"]} - asked == {
        Requirement("impchat")
    }
    assert after(apk.packaging, "--platform") == ["Android"]
    assert after(apk.packaging, "--arch") == ["arm64-v8a,x86_64"]
    assert after(apk.packaging, "--python-version") == [apk.python] == ["3.14"]
    assert apk.environment["SERIOUS_PYTHON_BUNDLE_ID"] == "org.impchat.mobile"


def test_only_the_folder_of_the_app_is_packaged(apk: Build) -> None:
    folder = apk.project.parents[1]
    assert apk.packaging[apk.packaging.index("package") + 1] == str(folder / "mobile")
    assert apk.values["python_module_name"] == "main"


def test_androids_icons_and_splash_are_made_from_the_drawn_one(apk: Build) -> None:
    resources = apk.project / "android/app/src/main/res"
    icon = picture(resources / "mipmap-xxxhdpi/ic_launcher.png")
    assert icon.size == (192, 192)
    assert near(icon.getpixel((96, 138)), (214, 76, 38))  # the chin
    front = picture(resources / "drawable-xxxhdpi/ic_launcher_foreground.png")
    assert front.size == (432, 432)
    assert front.getpixel((216, 20))[3] == 0  # a launcher's round mask may cut this part off, so it is empty
    assert picture(resources / "drawable-xxxhdpi/android12splash.png").size == (1152, 1152)
    assert apk.values["adaptive_icon_background"] == PROJECT["tool"]["flet"]["icon_background"]
    assert (apk.values["splash"]["color"], apk.values["splash"]["dark_color"]) == ("#fbfaf8", "#1b191f")


def test_a_pairing_link_opens_the_app(apk: Build, ipa: Build) -> None:
    shown = urlsplit(str(Link(("192.168.1.5:7861",), "ABCD2345", "ab" * 32)))
    filters = [f for f in manifest(apk).iter("intent-filter") if f.find("data") is not None]
    assert [dict(f.find("data").attrib) for f in filters] == [
        {f"{ANDROID}scheme": shown.scheme, f"{ANDROID}host": shown.netloc}
    ]
    names = {part.get(f"{ANDROID}name") for part in filters[0]}
    assert {"android.intent.action.VIEW", "android.intent.category.BROWSABLE"} <= names
    [kind] = info(ipa)["CFBundleURLTypes"]
    assert kind["CFBundleURLSchemes"] == [shown.scheme]
    for activity in manifest(apk).iter("activity"):
        metadata = {m.get(f"{ANDROID}name"): m.get(f"{ANDROID}value") for m in activity.iter("meta-data")}
        assert metadata["flutter_deeplinking_enabled"] == "true"
    assert info(ipa)["FlutterDeepLinkingEnabled"] is True


def picture(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        return opened.copy()


def near(found: tuple[int, ...], wanted: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 12 for a, b in zip(found[:3], wanted, strict=True))


def test_the_permission_texts_of_the_iphone_are_right(ipa: Build) -> None:
    properties = info(ipa)
    assert properties["CFBundleDisplayName"] == "ImpChat"
    assert "stays on this device unless you chose a server" in str(properties["NSCameraUsageDescription"])
    assert "pictures that you pick" in str(properties["NSPhotoLibraryUsageDescription"])
    assert "server that you paired" in str(properties["NSLocalNetworkUsageDescription"])
    assert "NSMicrophoneUsageDescription" not in properties
    assert properties["ITSAppUsesNonExemptEncryption"] is False


def test_the_ipa_is_built_for_the_iphone_and_is_unsigned(ipa: Build) -> None:
    assert after(ipa.packaging, "--platform") == ["iOS"]
    assert f"impchat @ {ipa.project.parents[1].as_uri()}" in after(ipa.packaging, "-r")
    assert "--no-codesign" in ipa.building
    icon = picture(ipa.project / "ios/Runner/Assets.xcassets/AppIcon.appiconset/Icon-App-1024x1024@1x.png")
    assert (icon.size, icon.mode) == ((1024, 1024), "RGB")  # Apple rejects transparency
    assert near(icon.getpixel((5, 5)), (42, 37, 49))


def test_the_release_is_signed_with_the_key_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLET_ANDROID_SIGNING_KEY_STORE", "/run/key.jks")
    build = flet_build.prepare(flet_build.copy_of_the_project(tmp_path / "impchat"), "aab")
    assert 'getByName("release")' in (build.project / "android/app/build.gradle.kts").read_text()
    assert "--split-per-abi" not in build.building  # a store needs one bundle for all processors


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({'target_arch = ["arm64-v8a", "x86_64"]': 'target_arch = ["x86"]'}, "Invalid Android architecture"),
        ({'"android.permission.RECORD_AUDIO" = false': '"android.permission.RECORD_AUDIO" = "no"'}, "permission value"),
        ({'requires-python = ">=3.11"': 'requires-python = "==3.11.*"'}, "does not match any"),
        ({'[tool.flet.app]\npath = "mobile"': '[tool.flet.app]\npath = "mobil"'}, "main.py not found"),
        (
            {"ITSAppUsesNonExemptEncryption = false": "ITSAppUsesNonExemptEncryption = 2026-01-01"},
            "Unsupported Info.plist",
        ),
    ],
    ids=["architecture", "permission", "python", "folder", "plist"],
)
def test_wrong_settings_are_refused_before_anything_is_built(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    folder = flet_build.copy_of_the_project(tmp_path / "impchat", change)
    with pytest.raises(Refused, match=reason):
        flet_build.prepare(folder, "ipa" if "plist" in reason else "apk")

"""The other screens without a browser: history, settings, lock, models, photos, and eyes-free mode."""

from __future__ import annotations

from pathlib import Path

import flet as ft

from impchat import applock, images, paths, preferences, settings
from impchat.app import App
from impchat.machine import Memory
from impchat.models import library
from impchat_mobile import launch
from tests.core.hands import copy_model
from tests.mobile.conftest import Play, drawing, picked
from tests.mobile.fake import Phone
from tests.mobile.test_chat import HINT, answered, ask
from tests.mobile.test_computer import back

ME = settings.OWNER


async def settle(phone: Phone, app: App) -> None:
    await phone.until(lambda: app.idle, "the end of the answer")


# Pictures


def test_a_part_is_selected_by_taps_alone_and_described_in_words(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Ready, ask anything")
        await phone.tap("Crop, turn, see it as the model does")
        await phone.until_words("Drag the corners")
        for _ in range(3):
            await phone.tap("A smaller part")
        assert "Chosen: from 24 to 76 % across, from 24 to 76 % down." in phone.words()
        for _ in range(9):
            await phone.tap("The part further left")
        await phone.tap("The part further down")
        assert "Chosen: from 0 to 51 % across, from 34 to 86 % down." in phone.words()
        await phone.tap("A larger part")
        assert "Chosen: from 0 to 64 % across, from 28 to 92 % down." in phone.words()
        await phone.tap("The whole picture")
        assert "Chosen" not in phone.words()
        for _ in range(3):
            await phone.tap("A smaller part")
        await phone.tap("Use this")
        await phone.until_words("Ready, ask anything")
        [kept] = app.history.conversations(ME)
        [part] = app.history.conversation(kept.uuid, ME).draft_images
        width, height = images.decode(app.history.image_bytes(part)).size
        assert (width, height) == (164, 122)

    play(scene, {"pick_files": picked(drawing("red", (320, 240)))})


def test_the_thinnest_pictures_are_visible_in_the_chat_enlarged_and_cropped(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Ready, ask anything")
        await phone.tap("Crop, turn, see it as the model does")
        await phone.until_words("Drag the corners")
        cropped = await phone.until(lambda: [i for i in phone.all(ft.Image) if i.fit == ft.BoxFit.FILL])
        assert cropped[0].width >= 48 and cropped[0].height >= 48
        await phone.tap("Use this")
        await ask(phone, "What is in the picture?")
        await answered(phone, 1)
        asked = [i for i in phone.all(ft.Image) if i.semantics_label == "Picture 1 of 1"]
        assert all(48 <= i.width <= 400 and 48 <= i.height <= 400 and i.fit == ft.BoxFit.FILL for i in asked) and asked
        await phone.tap("Show it large")
        [large] = await phone.until(lambda: [i for i in phone.all(ft.Image) if i.width is None and i.height is None])
        assert large.fit == ft.BoxFit.FILL  # as large as the screen

    play(scene, {"pick_files": picked(drawing("red", (1, 20_000)))})


# History


def test_chats_are_listed_found_pinned_renamed_and_deleted_with_undo(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        for text in ("Hello there", "What are you?"):
            await ask(phone, text)
            await answered(phone)
            await phone.tap("New chat")
        await phone.tap("Chats")
        await phone.until_words("Today")
        drawer = phone.words()
        assert "Hello there" in drawer
        assert "What are you?" in drawer

        await phone.tap("More: Hello there")
        await phone.tap("Pin")
        await phone.until_words("Pinned")
        assert app.history.conversations(ME)[0].title == "Hello there"

        await phone.tap("More: Hello there")
        await phone.tap("Rename")
        await phone.type("Title", "Greetings")
        await phone.tap("Save")
        await phone.until_words("Greetings")

        await phone.tap("More: Greetings")
        await phone.tap("Delete")
        await phone.until_words("Deleted: Greetings")
        assert [c.title for c in app.history.conversations(ME)] == ["What are you?"]
        await phone.tap("Undo")
        await phone.until(lambda: len(app.history.conversations(ME)) == 2, "the chat back")
        await phone.until_words("More: Greetings")
        assert "Deleted: Greetings" not in phone.words()

    play(scene)


def test_a_search_finds_words_of_an_answer_also_in_chinese(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("选择图片")
        await phone.type("就图片提问", "圆形是什么颜色？")
        await phone.tap("发送")
        await settle(phone, app)
        await phone.tap("对话列表")
        await phone.type("搜索对话", "红")
        await phone.until(
            lambda: [t for t in phone.all(ft.ListTile) if t.subtitle and "红" in t.subtitle.value], "a hit"
        )
        await phone.type("搜索对话", "大象")
        await phone.until_words("没有找到")

    play(scene, {"pick_files": picked(drawing("red"))}, language="zh")


def test_a_photo_in_the_library_leads_to_its_chat(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await ask(phone, "What colour is the circle?")
        await answered(phone)
        await phone.tap("New chat")
        await phone.tap("Chats")
        await phone.tap("Photo library")
        await phone.until_words("Picture of: What colour is the circle?")
        await phone.tap("Picture of: What colour is the circle?")
        await phone.tap("Open its chat")
        assert "red" in (await answered(phone))[0].lower()

    play(scene, {"pick_files": picked(drawing("red"))})


def test_on_a_wide_screen_the_history_is_next_to_the_chat(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await answered(phone)
        await phone.until_words("Search chats")
        await phone.until_words("Today")
        assert not phone.all(ft.IconButton, tooltip="Chats"), "no drawer to open"

    play(scene, width=1280)


def test_typed_text_survives_rotation_and_the_history_is_next_to_the_chat_only_on_a_high_screen(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await answered(phone)
        await phone.type(HINT, "And a half sen")
        for width, height, two_columns in ((1280, 800, True), (932, 430, False), (430, 932, False)):
            phone.session.apply_page_patch({"width": width, "height": height})
            await phone.fire(phone.page, "resize", {"width": width, "height": height})
            await phone.until(
                lambda two_columns=two_columns: ("Today" in phone.words()) == two_columns, "the other layout"
            )
            assert bool(phone.all(ft.IconButton, tooltip="Chats")) != two_columns
            assert phone.one(ft.TextField, label=HINT).value == "And a half sen"
            assert len(phone.all(ft.Markdown)) == 1

    play(scene)


# Settings


def test_language_and_theme_change_at_once_and_are_kept(play: Play) -> None:
    async def choose(phone: Phone, app: App) -> None:
        await phone.tap("More")
        await phone.tap("Settings")
        for number, value in ((1, "zh"), (0, "dark")):
            buttons = phone.all(ft.SegmentedButton)
            phone.session.apply_patch(buttons[number]._i, {"selected": [value]})
            await phone.fire(buttons[number], "change")
        await phone.until_words("外观")
        assert phone.page.theme_mode == ft.ThemeMode.DARK

    async def later(phone: Phone, app: App) -> None:
        assert "就图片提问" in phone.words()
        assert phone.page.theme_mode == ft.ThemeMode.DARK

    play(choose)
    play(later)


def test_a_chosen_temperature_is_used_and_reset(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("More")
        await phone.tap("Settings")
        slider = phone.all(ft.Slider)[0]
        phone.session.apply_patch(slider._i, {"value": 0.7})
        await phone.fire(slider, "change_end")
        assert preferences.load(app.data).sampling == {"temperature": 0.7}
        await phone.tap("As the model recommends")
        assert preferences.load(app.data).sampling == {}

    play(scene)


def test_a_shorter_context_takes_effect_and_shows_its_capacity(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("More")
        await phone.tap("Settings")
        context = phone.all(ft.SegmentedButton)[2]
        phone.session.apply_patch(context._i, {"selected": ["1024"]})
        await phone.fire(context, "change")
        await phone.until(lambda: app.context_tokens == 1024, "the shorter context")
        assert "Room for about 700 words" in phone.words()

    play(scene)


def test_storage_is_shown_and_each_deleted_chat_is_restored_or_removed_for_good(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        for title in ("first", "second", "third", "fourth"):
            row = app.history.create_conversation(ME, title)
            app.history.delete_conversation(row.uuid, ME)
        await phone.tap("More")
        await phone.tap("Settings")
        await phone.until_words("4 can be restored")
        await phone.tap("Deleted chats")
        await phone.until_words("Restore: second")
        await phone.tap("Restore: second")
        await phone.until_words("Restored: second")
        assert [c.title for c in app.history.conversations(ME)] == ["second"]
        await phone.tap("Delete for good: first")
        await phone.tap("Delete for good")
        await phone.until(lambda: "Restore: first" not in phone.words(), "the first one gone")
        assert {c.title for c in app.history.conversations(ME, deleted=True)} == {"third", "fourth"}
        await phone.tap("Empty")
        await phone.until_words("Delete all of them for good?")
        await phone.fire(phone.one(ft.FilledButton, content="Empty"), "click")
        await phone.until_words("No deleted chats")
        assert app.history.conversations(ME, deleted=True) == []
        await phone.session.dispatch_event(phone.page._i, "view_pop", {"route": ""})
        await phone.until_words("0 can be restored")

    play(scene)


def test_the_speed_test_shows_the_papers_four_figures_for_64_generated_tokens(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("More")
        await phone.tap("Settings")
        await phone.tap("Speed test")
        await phone.tap("Measure")
        await phone.until_words("T_total")
        assert "an answer of 64 tokens" in phone.words()
        assert "64 written" in phone.words()
        for name in ("T_VE", "S_prompt", "S_gen"):
            assert name in phone.words()

    play(scene)


# The lock


async def dial(phone: Phone, pin: str) -> None:
    for digit in pin:
        await phone.tap(digit)
    await phone.tap("Enter")


def test_a_lock_is_set_and_asks_before_anything_is_shown(play: Play, tmp_path: Path) -> None:
    async def lock(phone: Phone, app: App) -> None:
        await phone.tap("More")
        await phone.tap("Settings")
        switch = phone.one(ft.Switch, label="App lock")
        phone.session.apply_patch(switch._i, {"value": True})
        await phone.fire(switch, "change")
        await dial(phone, "4815")
        await dial(phone, "4815")
        await phone.until(lambda: applock.is_set(app.data), "the lock")

    async def come_back(phone: Phone, app: App) -> None:
        assert "Enter your PIN" in phone.words()
        assert len(phone.page.views) == 1, "there is no screen under the lock"
        await dial(phone, "1111")
        await phone.until_words("4 more tries")
        await dial(phone, "4815")
        await phone.until_words("Ask about a picture")

    play(lock)
    play(come_back)


async def switch_lock(phone: Phone, on: bool) -> None:
    switch = phone.one(ft.Switch, label="App lock")
    phone.session.apply_patch(switch._i, {"value": on})
    await phone.fire(switch, "change")


def test_a_short_pin_is_refused_before_it_is_repeated(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("More")
        await phone.tap("Settings")
        await switch_lock(phone, True)
        await dial(phone, "481")
        assert "Choose a PIN" in phone.words()
        assert "4 to 12 digits" in phone.words()
        assert "The same again" not in phone.words()
        await dial(phone, "4815")
        assert "The same again" in phone.words()

    play(scene)


def test_switching_the_lock_off_can_be_cancelled_but_the_lock_cannot_be_left(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        applock.set_pin(app.data, "4815")
        await phone.tap("More")
        await phone.tap("Settings")
        await switch_lock(phone, False)
        assert "Enter your PIN" in phone.words()
        view = phone.page.views[-1]
        assert view.can_pop
        assert view.appbar, "a back button is visible"
        await phone.session.dispatch_event(phone.page._i, "view_pop", {"route": view.route})
        assert phone.one(ft.Switch, label="App lock").value
        assert applock.is_set(app.data)

    async def locked(phone: Phone, app: App) -> None:
        assert not phone.page.views[-1].can_pop

    play(scene)
    play(locked)


# Models, memory, eyes-free


def test_the_demo_runs_at_first_launch_and_the_family_is_listed_with_its_memory(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Get the real Imp")
        await phone.until_words("runs now")
        words = phone.words()
        assert "Imp-v1.5-3B @196" in words
        assert "research use only" in words
        assert "memory" in words

    play(scene)


def test_an_unverified_model_runs_on_request_and_stays_labelled(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        folder = paths.models_dir(app.data) / "doubtful"
        copy_model(paths.demo_bundle(), folder, id="doubtful", name="My own", unverified="nll 3.1 (≤ 2.5)")
        await phone.tap("Chats")
        await phone.tap("Models")
        await phone.until_words("Unverified model (nll 3.1 (≤ 2.5))")
        await phone.tap("Use it all the same")
        await phone.until(lambda: app.model == "doubtful", "the choice")
        assert library.chosen(app.data) == "doubtful"
        await back(phone)
        await phone.until_words("My own · Unverified model")

    play(scene)


def test_low_memory_unloads_an_idle_model_and_the_next_question_loads_it_again(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await answered(phone)
        life = launch.Lifecycle.of(phone.page)
        await life.free_memory(Memory(free=10**9, total=4 * 10**9))
        assert app.loaded
        await life.free_memory(Memory(free=10**8, total=4 * 10**9))
        assert not app.loaded
        await ask(phone, "Hello again")
        await answered(phone, 2)

    play(scene)


CAMERA = {"name": "0", "lens_direction": "back", "sensor_orientation": 0}


def reader(on: bool, announces: bool) -> dict[str, bool]:
    """The platform's description of its screen reader: TalkBack ignores announcements, VoiceOver and browsers read
    them."""
    others = "bold_text disable_animations high_contrast invert_colors reduce_motion on_off_switch_labels"
    return dict.fromkeys(others.split(), False) | {"accessible_navigation": on, "supports_announcements": announces}


async def shoot(phone: Phone) -> None:
    """Take a photo in eyes-free mode."""
    await phone.tap("More")
    await phone.tap("Eyes-free mode")
    await phone.until_words("Tap anywhere")
    stage = next(c for c in phone.all(ft.Container) if c.on_click and c.expand)
    await phone.fire(stage, "click")


def said_live(phone: Phone) -> str:
    """The text of live regions, which a screen reader reads when it changes."""
    regions = phone.all(ft.Semantics, live_region=True)
    return " ".join(region.content.value for region in regions if isinstance(region.content, ft.Text))


def test_eyes_free_mode_describes_a_photo_aloud(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await shoot(phone)
        calls = phone.connection.calls
        await phone.until(
            lambda: [a for name, a in calls if name == "announce_message" and "red circle" in str(a)],
            "words said aloud",
        )
        assert len(app.history.pictures(ME)) == 1, "kept in the history like any other"

    play(
        scene,
        {
            "get_available_cameras": [CAMERA],
            "take_picture": drawing("red"),
            "get_accessibility_features": reader(on=True, announces=True),
        },
    )


def test_talkback_reads_the_description_once_from_its_live_region(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await shoot(phone)
        await phone.until(lambda: "red circle" in said_live(phone), "the words in a live region")
        await settle(phone, app)
        assert not [name for name, _ in phone.connection.calls if name == "announce_message"]

    play(
        scene,
        {
            "get_available_cameras": [CAMERA],
            "take_picture": drawing("red"),
            "get_accessibility_features": reader(on=True, announces=False),
        },
    )


def test_without_a_screen_reader_eyes_free_mode_explains_how_to_get_one(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await answered(phone)
        await phone.tap("Read aloud")
        await phone.until_words("TalkBack")
        assert not [name for name, _ in phone.connection.calls if name == "announce_message"]

    play(scene, {"get_accessibility_features": reader(on=False, announces=True)})

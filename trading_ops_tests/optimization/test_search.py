"""Does a search try what it should, once, and go on where it was killed as if nothing had happened?"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from trading_ops.files import FileNotWritten
from trading_ops.optimization.chunks import KEPT_SEARCHES, ChunkFolder, tidy
from trading_ops.optimization.moments import Moments
from trading_ops.optimization.proposals import SHOWN_BEST, SHOWN_NEWEST, propose, shown
from trading_ops.optimization.search import Found, Progress, search
from trading_ops.optimization.space import Space, build_space

DAYS = np.array([20, 20, 20, 20])
TRAIN = 2
WIDE = build_space(
    "rsi",
    {
        "period": {"low": 5, "high": 50, "step": 1},
        "oversold": {"low": 10, "high": 60, "step": 1},
        "overbought": {"low": 40, "high": 90, "step": 1},
        "stop_loss_pct": ["off", 1, 2, 5],
    },
)
SMALL = build_space("rsi")


class Market:
    """Scores sets by a smooth hill over the parameters, the same on every block unless `folds` says otherwise."""

    def __init__(self, folds: float = 1.0) -> None:
        self.folds = folds
        self.scored = 0

    def __call__(self, sets: Mapping[str, np.ndarray]) -> Moments:
        hill = 1 - (sets["period"] - 20) ** 2 / 900 - (sets["oversold"] - 30) ** 2 / 900
        self.scored += len(hill)
        sums = 0.1 * np.repeat(hill[:, None], 4, axis=1)
        sums[:, TRAIN:] *= self.folds
        trades = np.where(sets["period"] > 45, 0.0, 10.0)  # some sets never trade
        return Moments(DAYS, sums, np.full(sums.shape, 0.05), np.repeat(trades[:, None], 4, axis=1))


def run(
    folder: Path, space: Space = WIDE, sets: int = 250, market: Market | None = None, seed: int = 3, identity: str = "x"
) -> tuple[Found, list[Progress], Market]:
    market, told = market or Market(), []
    found = search(
        space, sets, market, ChunkFolder(folder, identity), days=DAYS, train_blocks=TRAIN, min_trades=5, seed=seed,
        told=told.append,
    )  # fmt: skip
    return found, told, market


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found]:
    """A search that was not interrupted, and its folder: three chunks."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder)[0]


def copied(finished: tuple[Path, Found], folder: Path) -> Found:
    shutil.copytree(finished[0], folder, dirs_exist_ok=True)
    return finished[1]


def same(one: Found, other: Found) -> bool:
    arrays = [(one.places, other.places)] + [
        (getattr(one.moments, name), getattr(other.moments, name)) for name in ("days", "returns", "squares", "trades")
    ]
    return one.method == other.method and all(a.tobytes() == b.tobytes() for a, b in arrays)


def test_a_space_that_fits_is_tried_whole_and_a_larger_one_is_searched(tmp_path):
    whole, told, _ = run(tmp_path / "grid", SMALL, 150)
    assert (whole.method, len(whole.places)) == ("grid", SMALL.size)
    assert np.array_equal(whole.places, SMALL.grid())
    assert [p.done for p in told] == [50, 100, 150]
    some, told, _ = run(tmp_path / "tpe", SMALL, 149)
    assert (some.method, len(some.places)) == ("tpe", 149)
    assert [(p.done, p.total) for p in told] == [(100, 149), (149, 149)]


def test_no_set_is_tried_twice_and_each_can_be(finished):
    found = finished[1]
    assert len({tuple(row) for row in found.places.tolist()}) == len(found.places) == 250
    assert WIDE.possible(found.places).all()


def test_a_guided_search_finds_better_sets_than_drawing_as_many(finished):
    drawn = Market()(WIDE.columns(WIDE.draw(np.random.default_rng(5), 2_000))).returns[:, 0]
    assert (finished[1].moments.returns[:, 0] > np.quantile(drawn, 0.99)).mean() > 0.05


def test_nothing_of_a_fold_reaches_a_proposal(finished, tmp_path):
    found = finished[1]
    other, told, _ = run(tmp_path, market=Market(folds=-1e6))
    assert np.array_equal(found.places, other.places)
    assert not np.array_equal(found.moments.returns, other.moments.returns)
    bests = [progress.best_train_sharpe for progress in told]
    assert bests == sorted(bests)


def test_another_seed_is_another_search(finished, tmp_path):
    assert not np.array_equal(finished[1].places, run(tmp_path, seed=4)[0].places)


@pytest.mark.parametrize("kept", range(3))
def test_a_search_that_stopped_after_any_chunk_goes_on_to_the_same_end(finished, tmp_path, kept):
    whole = copied(finished, tmp_path)
    for path in sorted(tmp_path.glob("*.npz"))[kept:]:
        path.unlink()
    again, told, market = run(tmp_path)
    assert same(whole, again)
    assert again.resumed_sets == 250 - market.scored == kept * 100
    assert [p.resumed for p in told] == [True] * kept + [False] * (3 - kept)


def test_a_whole_search_is_not_scored_again(finished, tmp_path):
    whole = copied(finished, tmp_path)
    again, _, market = run(tmp_path)
    assert same(whole, again)
    assert market.scored == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_chunk_is_computed_again(finished, tmp_path, damage):
    whole = copied(finished, tmp_path)
    path = tmp_path / "00001.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    broken = {"truncated": content[:200], "flipped": content, "empty": b"", "text": b"not a chunk"}[damage]
    path.write_bytes(bytes(broken))
    again, _, market = run(tmp_path)
    assert same(whole, again)
    assert market.scored == 100  # the chunk after it is sealed upon the same one as before


def test_a_chunk_that_cannot_be_replaced_is_named(finished, tmp_path):
    copied(finished, tmp_path)
    (tmp_path / "00001.npz").unlink()
    (tmp_path / "00001.npz").mkdir()
    with pytest.raises(FileNotWritten, match=r"00001\.npz: cannot be written"):
        run(tmp_path)


def test_every_flipped_bit_of_a_chunk_that_matters_is_noticed(tmp_path):
    whole, _, _ = run(tmp_path, SMALL, 150)
    path = tmp_path / "00001.npz"
    content = path.read_bytes()
    anywhere = [(int(at), int(at) % 8) for at in np.random.default_rng(0).integers(0, len(content), 60)]
    directory = [(at, bit) for at in range(len(content) - 300, len(content)) for bit in range(8)]  # of the zip file
    folder = ChunkFolder(tmp_path, "x")
    for at, bit in anywhere + directory:
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        path.write_bytes(bytes(changed))
        if (at, bit) in anywhere:
            assert same(whole, run(tmp_path, SMALL, 150)[0])
        else:
            folder.load(1, "", DAYS)  # whatever numpy and zipfile say, it is an answer
    np.save(tmp_path / "other.npy", np.zeros(3))
    (tmp_path / "other.npy").rename(path)
    assert same(whole, run(tmp_path, SMALL, 150)[0])


@pytest.mark.parametrize("foreign", ["another search", "another chunk", "other rules"])
def test_a_chunk_from_elsewhere_is_not_believed(tmp_path, foreign):
    whole, _, _ = run(tmp_path / "here", SMALL, 150)
    target = tmp_path / "here" / "00001.npz"
    if foreign == "another search":
        run(tmp_path / "there", SMALL, 150, identity="y")
        target.write_bytes((tmp_path / "there" / "00001.npz").read_bytes())
    elif foreign == "another chunk":
        target.write_bytes((tmp_path / "here" / "00002.npz").read_bytes())
    again, _, market = run(tmp_path / "here", SMALL, 150, identity="y" if foreign == "other rules" else "x")
    assert same(whole, again)
    assert market.scored == (150 if foreign == "other rules" else 50)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileNotWritten, match="cannot be written: Not a directory"):
        run(tmp_path / "file" / "search")


def test_only_the_newest_searches_are_kept(tmp_path):
    for number in range(KEPT_SEARCHES + 3):
        folder = tmp_path / f"{number:02d}"
        folder.mkdir()
        os.utime(folder, (number, number))
    tidy(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [f"{n:02d}" for n in range(3, KEPT_SEARCHES + 3)]
    tidy(tmp_path / "nowhere")


def test_what_a_kill_left_half_written_goes_when_no_one_can_be_at_it_any_more(tmp_path):
    (tmp_path / "search").mkdir()
    old, fresh = (tmp_path / "search" / f"{number:05d}.npz.1.part" for number in (1, 2))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    tidy(tmp_path)
    assert list((tmp_path / "search").iterdir()) == [fresh]


def test_a_space_that_is_used_up_ends_the_proposals():
    places = SMALL.grid()
    left = propose(SMALL, places[5:], np.arange(145.0), 100, seed=1, chunk=2)
    assert {tuple(row) for row in left.tolist()} <= {tuple(row) for row in places[:5].tolist()}
    assert len(left) == 5
    assert len(propose(SMALL, places, np.arange(150.0), 100, seed=1, chunk=2)) == 0


def test_the_estimator_is_shown_the_best_and_the_newest():
    scores = np.arange(1000.0)[::-1].copy()
    scores[5] = np.nan
    expected = {*range(SHOWN_BEST + 1), *range(1000 - SHOWN_NEWEST, 1000)} - {5}
    assert set(shown(scores).tolist()) == expected
    assert shown(np.full(3, np.nan)).tolist() == [0, 1, 2]


def test_where_nothing_traded_the_proposals_are_drawn():
    places = WIDE.draw(np.random.default_rng(0), 50)
    assert len(propose(WIDE, places, np.full(50, np.nan), 100, seed=1, chunk=1)) == 100

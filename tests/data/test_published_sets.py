"""Published data sets: what becomes of the pixels of their files, how these are found and downloaded, what is refused."""

import gzip
import hashlib
import http.server
import json
import pickle
import shutil
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hamflow import cli, data
from hamflow.config import registered
from hamflow.data import arrays, cifar10, fashion_mnist, ffhq64, finding, fluent_emoji
from hamflow.data.finding import Download, Published
from hamflow.errors import ConfigurationError, DataError

SOURCES = {"fashion_mnist": fashion_mnist, "cifar10": cifar10, "fluent_emoji32": fluent_emoji, "ffhq64": ffhq64}


def read(source, **options):
    return data.build(source, options).read()


def parts(source, **options):
    """Which rows are held out."""
    return data.build(source, options).held_out()


def test_fashion_is_padded_with_two_black_pixels(fashion):
    folder, images, labels = fashion
    found, told = read("fashion_mnist", path=str(folder))
    assert found.shape == (30, 32, 32, 1)
    assert np.array_equal(found[:, 2:-2, 2:-2, 0], images)
    assert found.sum() == images.sum()
    assert np.array_equal(told, labels)
    assert np.array_equal(parts("fashion_mnist", path=str(folder)), np.arange(30) >= 20)
    assert np.array_equal(read("fashion_mnist", path=str(folder), resolution=28)[0][..., 0], images)


def test_fashion_of_16_pixels_is_the_mean_over_areas(fashion):
    """By another way: each pixel as 4 x 4 of a quarter's side, and the means of 7 x 7 of these."""
    folder, images, _ = fashion
    fine = images.repeat(4, 1).repeat(4, 2).astype(np.float64)
    expected = fine.reshape(-1, 16, 7, 16, 7).mean((2, 4)).round()
    assert np.array_equal(read("fashion_mnist", path=str(folder), resolution=16)[0][..., 0], expected)


@pytest.mark.parametrize("way", ["unpacked", "tar"])
def test_fashion_is_the_same_however_it_is_packed(fashion, tmp_path, way):
    (folder := tmp_path / "other").mkdir()
    for path in fashion[0].iterdir():
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    if way == "tar":
        folder = shutil.make_archive(str(tmp_path / "packed"), "tar", folder)
    assert np.array_equal(read("fashion_mnist", path=str(folder))[0], read("fashion_mnist", path=str(fashion[0]))[0])


def test_planes_of_cifar_become_pixels(cifar):
    path, images, labels, _ = cifar
    found, told = read("cifar10", path=str(path))
    assert np.array_equal(found, images)
    assert np.array_equal(told, labels)
    assert np.array_equal(parts("cifar10", path=str(path)), np.arange(60) >= 50)


def test_an_unpacked_cifar_is_the_same(cifar, tmp_path):
    with tarfile.open(cifar[0]) as archive:
        archive.extractall(tmp_path)
    assert np.array_equal(read("cifar10", path=str(tmp_path / "cifar-10-batches-py"))[0], cifar[1])


def test_a_file_that_is_no_cifar_is_a_paragraph(cifar, tmp_path, capsys):
    """With both digests and exit code 2."""
    path = tmp_path / cifar10.FILE
    path.write_bytes(cifar[0].read_bytes() + b"\0")
    found = hashlib.md5(path.read_bytes()).hexdigest()
    entry = {"label": "-", "source": "cifar10", "network": "unet", "features": "efficientnet_lite0", "n_samples": 10}
    setting = f"datasets.cifar={json.dumps(entry | {'options': {'path': str(path)}})}"
    arguments = ["prepare", "quickstart/cifar", "--params", "params.yaml", "--output", str(tmp_path / "out")]
    assert cli.main([*arguments, "--set", "networks.unet.attention=[]", "--set", setting]) == 2
    told = capsys.readouterr().err
    assert f"md5 {found}, not {cifar10.MD5}" in told
    assert "Fix: " in told
    assert not (tmp_path / "out" / "images.npy").exists()


def test_a_batch_of_other_bytes_is_no_cifar(cifar, tmp_path):
    for name, content in cifar[3].items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "data_batch_3").write_bytes(cifar[3]["data_batch_4"])
    with pytest.raises(DataError, match="data_batch_3 is not CIFAR-10: it has md5"):
        read("cifar10", path=str(tmp_path))


def test_a_batch_runs_no_code(cifar, tmp_path, monkeypatch):
    class Harm:
        def __reduce__(self):
            return (tmp_path / "harm").write_text, ("done",)

    for name, content in cifar[3].items():
        (tmp_path / name).write_bytes(content)
    content = pickle.dumps({"data": Harm(), "labels": []}, protocol=2)
    (tmp_path / "test_batch").write_bytes(content)
    monkeypatch.setitem(cifar10.BATCHES, "test_batch", hashlib.md5(content).hexdigest())
    with pytest.raises(DataError, match="no batch of CIFAR-10"):
        read("cifar10", path=str(tmp_path))
    assert not (tmp_path / "harm").exists()


def test_emoji_lie_on_white_by_premultiplied_alpha(emoji):
    """The mean of a c + (1 - a) 255 over each block: no colour of a transparent pixel shines through.

    Pillow rounds three times, the composite (checked for every c and a), the means of columns and those of rows: 3/2 in all.
    """
    c, a = np.meshgrid(np.arange(256), np.arange(256))
    both = Image.fromarray(np.stack([c, c, c, a], -1).astype(np.uint8))
    composite = np.asarray(Image.alpha_composite(Image.new("RGBA", both.size, "white"), both))[..., 0]
    assert np.abs(composite - (a * c / 255 + 255 - a)).max() < 0.5
    path, pictures, _ = emoji
    found, _ = read("fluent_emoji32", path=str(path))
    for image, name in zip(found, sorted(f"{name}.webp" for name in pictures), strict=True):
        picture = pictures[name.removesuffix(".webp")].astype(float)
        alpha = picture[..., 3:] / 255
        white = alpha * picture[..., :3] + (1 - alpha) * 255
        assert np.abs(image - white.reshape(32, 2, 32, 2, 3).mean((1, 3))).max() <= 1.5


@pytest.mark.parametrize("skin_tones", [True, False])
def test_variants_of_an_emoji_are_in_one_part(emoji, skin_tones):
    names = sorted(name for name in emoji[1] if skin_tones or "-1f3f" not in name)
    held_out = parts("fluent_emoji32", path=str(emoji[0]), skin_tones=skin_tones)
    assert len(held_out) == len(names)
    groups = {}
    for name, part in zip(sorted(names, key=lambda name: f"{name}.webp"), held_out, strict=True):
        groups.setdefault(name.split("-")[0], set()).add(bool(part))
    assert {True} in groups.values()
    assert {False} in groups.values()
    assert {True, False} not in groups.values()


def test_a_tenth_of_the_code_points_is_held_out():
    """Of n independent ones, within four standard deviations."""
    n, p = 100_000, fluent_emoji.TEST
    count = sum(fluent_emoji.is_held_out(f"{code:x}.webp") for code in range(n))
    assert abs(count - n * p) < 4 * np.sqrt(n * p * (1 - p))


def test_other_emoji_are_refused(emoji, tmp_path):
    for name, content in emoji[2].items():
        (tmp_path / name).write_bytes(content)
    assert read("fluent_emoji32", path=str(tmp_path))[0].shape[0] == len(emoji[1])  # a folder is as good as an archive
    (tmp_path / "1f306.webp").write_bytes(emoji[2]["1f344.webp"])
    with pytest.raises(DataError, match="not Fluent Emoji"):
        read("fluent_emoji32", path=str(tmp_path))


def test_faces_of_the_right_size_keep_every_pixel(faces):
    assert np.array_equal(read("ffhq64", path=str(faces[0]), count=9)[0], faces[1])


def test_larger_faces_become_means(tmp_path, encode):
    images = np.random.default_rng(1).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        (tmp_path / f"{index}.png").write_bytes(encode(image))
    found, labels = read("ffhq64", path=str(tmp_path), count=3)
    assert labels is None
    assert np.abs(found - images.reshape(3, 64, 4, 64, 4, 3).mean((2, 4))).max() <= 1
    assert "box filter" in data.build("ffhq64", {}).origin


def test_the_labels_of_a_label_file_are_kept(faces, tmp_path):
    folder = shutil.copytree(faces[0], tmp_path / "labelled")
    pairs = [f'["00000/img{index:08d}.png", {index % 3}]' for index in range(9)]
    (folder / "dataset.json").write_text(f'{{"labels": [{", ".join(pairs)}]}}')
    path = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    assert read("ffhq64", path=path, count=9)[1].tolist() == [0, 1, 2] * 3


def test_a_part_of_the_faces_is_not_ffhq(faces):
    with pytest.raises(DataError, match="9 images, not 70000"):
        read("ffhq64", path=str(faces[0]))


@pytest.mark.parametrize(("source", "network"), [("fluent_emoji32", "unet"), ("rings", "mlp")])
def test_labels_that_a_source_does_not_have_are_refused_before_any_job(tiny_config, source, network):
    kind = {"unet": "efficientnet_lite0", "mlp": "points"}[network]
    entry = tiny_config["datasets"]["rings" if network == "mlp" else "digits"]
    entry = {**entry, "source": source, "options": {}, "features": kind, "network": network, "conditional": True}
    with pytest.raises(ConfigurationError, match=r"conditional.*no classes"):
        registered.check({**tiny_config, "datasets": {"some": entry}, "run": {**tiny_config["run"], "datasets": ["some"]}})


def test_the_order_of_the_places(tmp_path, monkeypatch):
    """The path, HAMFLOW_DATA, a package; each is found once those before it are not there."""
    given, own, loose, package = (tmp_path / name for name in ("given.zip", "data/some/some.zip", "data/some.zip", "package"))
    for place in (given, own, loose, package):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    monkeypatch.setenv(finding.VARIABLE, str(tmp_path / "data"))
    published = Published("some", names=("some.zip",), packages=(str(package),))
    assert published.find(str(given)) == given
    for place in (own, loose, package):
        assert published.find("") == place
        place.unlink()
    with pytest.raises(ConfigurationError):
        published.find("")


@pytest.mark.parametrize("name", SOURCES)
def test_files_that_are_nowhere_are_a_paragraph_of_three_ways(name, monkeypatch, tmp_path):
    def unreachable(request, timeout):
        raise OSError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finding.urllib.request, "urlopen", unreachable)
    published = SOURCES[name].PUBLISHED
    monkeypatch.setattr(SOURCES[name], "PUBLISHED", replace(published, packages=()))
    for options, told in (({}, "not on this machine"), ({"path": "absent.zip"}, "absent.zip")):
        with pytest.raises(ConfigurationError, match=told) as error:
            read(name, **options)
        ways = str(error.value).partition("Fix: ")[2]
        assert finding.VARIABLE in ways
        assert "path: PATH" in ways
        assert published.install in ways
        assert all(one.url in ways for one in published.downloads)
        assert published.page in ways


class Server(http.server.BaseHTTPRequestHandler):
    """Gives `content`, from where a client asks for it; breaks the connection after `most` bytes."""

    content, most, asked = bytes(range(256)) * 40, 10**9, []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").partition("=")[2].rstrip("-"))
        self.asked.append(start)
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : start + self.most])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    """(address of a file, its server's settings)."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Handler", (Server,), {"asked": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/some.zip", handler
    running.shutdown()
    thread.join()
    running.server_close()


def one_of(address):
    return Published("some", downloads=(Download(address, hashlib.sha256(Server.content).hexdigest()),))


def test_a_download_is_made_once(server, tmp_path, monkeypatch):
    address, handler = server
    monkeypatch.setenv(finding.VARIABLE, str(tmp_path / "data"))
    for _ in range(2):
        path = one_of(address).find("")
        assert path == tmp_path / "data" / "some" / "some.zip"
        assert path.read_bytes() == Server.content
    assert handler.asked == [0]
    assert [file.name for file in path.parent.iterdir()] == ["some.zip"]


def test_a_broken_download_is_gone_on_with(server, tmp_path):
    address, handler = server
    handler.most = 4000
    with pytest.raises(ConfigurationError, match=f"broke after 4000 of {len(Server.content)} bytes"):
        one_of(address).find("")
    handler.most = 10**9
    assert one_of(address).find("").read_bytes() == Server.content
    assert handler.asked == [0, 4000]


def test_a_download_of_other_bytes_is_not_taken(server, tmp_path):
    address, handler = server
    handler.content = b"others" * 100
    with pytest.raises(DataError, match="has sha256"):
        one_of(address).find("")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_lies_there_is_more_than_the_file(server, tmp_path):
    """A server has nothing behind it: all of it is fetched again."""
    address, handler = server
    (part := tmp_path / "cache" / "hamflow" / "some" / ".some.zip.part").parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(Server.content) + 1))
    assert one_of(address).find("").read_bytes() == Server.content
    assert handler.asked == [len(Server.content) + 1, 0]


def test_some_of_several_downloads_are_completed(server, tmp_path):
    """A folder with one file of two is not the data set."""
    address, handler = server
    both = (*one_of(address).downloads, *one_of(f"{address}2").downloads)
    (folder := tmp_path / "cache" / "hamflow" / "some").mkdir(parents=True)
    (folder / "some.zip").write_bytes(Server.content)
    found = replace(one_of(address), downloads=both).find("")
    assert found == folder
    assert sorted(path.name for path in folder.iterdir()) == ["some.zip", "some.zip2"]
    assert handler.asked == [0]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_of_a_large_array_are_the_rows(tmp_path, monkeypatch, dtype):
    """Read from the file that was opened, also where another has taken its name."""
    rows = np.random.default_rng(0).integers(0, 256, (300, 5, 7)).astype(dtype)
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.setattr(arrays, "SMALL", 0)
    opened = arrays.open_array(tmp_path / "rows.npy", dtype=dtype, shape=[300, 5, 7], why="", fix="")
    np.save(tmp_path / "other.npy", rows + 1)
    (tmp_path / "other.npy").replace(tmp_path / "rows.npy")
    for part in (opened, opened[3:], opened[:100]):
        picked = np.random.default_rng(1).integers(0, len(part), 50)
        assert opened._mmap in arrays._FILES
        assert np.array_equal(arrays.take(part, picked), np.asarray(part)[picked])
    assert np.array_equal(arrays.take(opened, np.arange(300)), rows)

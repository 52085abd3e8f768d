import tarfile

import pytest

from tests.trainer.data.images import encode, pixels, samples, tar_members, write_tar
from wenet_trainer.data.webdataset import read_webdataset
from wenet_trainer.errors import DataError

JPEG, PNG = encode(pixels(0), "JPEG"), encode(pixels(1))


def test_members_of_one_key_are_one_sample_whatever_else_lies_there(tmp_path):
    members = [
        ("README", b"licence"),
        ("a/x.jpg", JPEG), ("a/x.cls", b"1\n"), ("a/x.txt", b"a bee"),
        ("b/x.json", b'{"label": 0, "caption": "an ant"}'), ("b/x.PNG", PNG), ("b/x.seg.png", PNG),
        ("b/._x.png", b"junk"),
        ("c/" + 120 * "long" + ".cls", b"2"), ("c/" + 120 * "long" + ".jpeg", JPEG),
    ]  # fmt: skip
    contents = read_webdataset(write_tar(tmp_path / "00.tar", members))
    split = contents.splits["train"]
    assert split.labels.tolist() == [1, 0, 2]
    assert [split.store.read(row) for row in range(3)] == [JPEG, PNG, JPEG]
    assert split.store.name(1) == f"{tmp_path / '00.tar'}, image 'b/x'"
    assert contents.classes == ("0", "1", "2")


def test_shards_say_their_split_by_name_or_directory(tmp_path):
    for name in ("imagenet-train-000.tar", "imagenet-train-001.tar", "imagenet-val-000.tar", "test/000.tar"):
        write_tar(tmp_path / name, tar_members(samples(3)))
    contents = read_webdataset(tmp_path)
    assert {name: len(split) for name, split in contents.splits.items()} == {"train": 6, "validation": 3, "test": 3}


def test_shards_that_say_nothing_are_training_images(tmp_path):
    for name in ("000.tar", "001.tar"):
        write_tar(tmp_path / name, tar_members(samples(3)))
    assert {name: len(split) for name, split in read_webdataset(tmp_path).splits.items()} == {"train": 6}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("7.jpg", JPEG)], r"0.tar: sample '7' has no label \(.cls or .json\)"),
        ([("7.cls", b"1")], "sample '7' has 0 images instead of one"),
        ([("7.jpg", JPEG), ("7.png", PNG), ("7.cls", b"1")], "sample '7' has 2 images"),
        ([("7.jpg", b""), ("7.cls", b"1")], "the image of sample '7' is empty"),
        ([("7.jpg", JPEG), ("7.cls", b"bee")], "the label of sample '7' .7.cls: b'bee'. is no class index"),
        ([("7.jpg", JPEG), ("7.cls", b"-1")], "is no class index"),
        ([("7.jpg", JPEG), ("7.cls", b"true")], "is no class index"),
        ([("7.jpg", JPEG), ("7.json", b'{"name": 1}')], "is no class index"),
        ([("7.jpg", JPEG), ("7.json", b"[" * 100_000)], "is no class index"),
        ([("7.jpg", JPEG), ("7.cls", b"5000000")], "0.tar, image '7' has label 5000000, but there are only 1 images"),
        ([("7.jpg", JPEG), ("7.cls", b"9223372036854775807")], "has label 9223372036854775807, but there are only"),
        ([("7.jpg", JPEG), ("7.cls", b"9223372036854775808")], "is no class index"),
        ([("notes.txt", b"hello")], "0.tar holds no image"),
    ],
)
def test_a_sample_that_makes_no_sense_is_named_with_its_shard(members, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_webdataset(write_tar(tmp_path / "0.tar", members))


def test_shards_that_are_no_plain_tar_files_are_named(tmp_path):
    whole = write_tar(tmp_path / "0.tar", tar_members(samples(9))).read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"0.tar is no plain tar file, or is cut short"):
        read_webdataset(tmp_path)
    write_tar(tmp_path / "0.tar", tar_members(samples(3)), "w:gz")
    with pytest.raises(DataError, match=r"0.tar is no plain tar file.*decompress it"):
        read_webdataset(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"0.tar is empty"):
        read_webdataset(tmp_path)
    (tmp_path / "0.tar").unlink()
    with pytest.raises(DataError, match=r"holds no \*.tar file"):
        read_webdataset(tmp_path)


def ends(path):
    """Where each member's header starts, and where the last member ends."""
    with tarfile.open(path) as archive:
        return [member.offset for member in archive.getmembers()], archive.offset


def test_a_shard_cut_anywhere_before_its_end_is_refused(tmp_path):
    shard = write_tar(tmp_path / "0.tar", tar_members(samples(3)))
    whole = shard.read_bytes()
    headers, end = ends(shard)
    assert len(headers) == 6
    cuts = {cut for start in headers for cut in (start, start + 1, start + 300, start + 512, start + 600)} - {0}
    for cut in sorted(cuts | {end - 1, end, end + 511}):
        shard.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"0.tar is no plain tar file, or is cut short"):
            read_webdataset(tmp_path)
    for kept in (end + 512, end + 1024, len(whole)):  # a lone block of zeros ends an archive too
        shard.write_bytes(whole[:kept])
        assert len(read_webdataset(tmp_path).splits["train"]) == 3


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
@pytest.mark.parametrize("member", range(1, 6))
def test_a_shard_with_a_damaged_header_is_refused(member, filling, tmp_path):
    shard = write_tar(tmp_path / "0.tar", tar_members(samples(3)))
    start = ends(shard)[0][member]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:start] + 512 * filling + whole[start + 512 :])
    with pytest.raises(DataError, match=rf"0.tar .*cut short \(damaged near byte {start}, or several archives"):
        read_webdataset(tmp_path)


def test_archives_joined_in_one_file_are_refused(tmp_path):
    whole = write_tar(tmp_path / "0.tar", tar_members(samples(3))).read_bytes()
    (tmp_path / "0.tar").write_bytes(2 * whole)
    with pytest.raises(DataError, match="or several archives in one file"):
        read_webdataset(tmp_path)


def test_names_of_classes_that_are_no_text_are_refused(tmp_path):
    write_tar(tmp_path / "0.tar", tar_members(samples(3)))
    (tmp_path / "labels.txt").write_bytes("Fuß\nb\nc\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels.txt cannot be read as UTF-8 text"):
        read_webdataset(tmp_path)


def test_a_shard_that_is_there_twice_is_refused(tmp_path):
    shard = write_tar(tmp_path / "train-0.tar", tar_members(samples(3)))
    for other in ("val-0.tar", "train-1.tar"):
        (tmp_path / other).symlink_to(shard)
        with pytest.raises(DataError, match=rf"{other} and .*train-0.tar are one file|train-0.tar and .*{other} are"):
            read_webdataset(tmp_path)
        (tmp_path / other).unlink()
    (tmp_path / "val-0.tar").write_bytes(shard.read_bytes())  # a copy is another file
    assert sorted(read_webdataset(tmp_path).splits) == ["train", "validation"]
    (tmp_path / "test-0.tar").symlink_to(tmp_path / "nowhere.tar")
    with pytest.raises(DataError, match=r"test-0.tar cannot be read"):
        read_webdataset(tmp_path)


def test_split_words_that_contradict_are_refused(tmp_path):
    write_tar(tmp_path / "train-0.tar", tar_members(samples(3)))
    write_tar(tmp_path / "odd.tar", tar_members(samples(3)))
    with pytest.raises(DataError, match=r"odd.tar does not say which split"):
        read_webdataset(tmp_path)
    (tmp_path / "odd.tar").rename(tmp_path / "train_test.tar")
    with pytest.raises(DataError, match=r"names more than one split \(test, train\)"):
        read_webdataset(tmp_path)


def test_too_few_names_for_the_labels_are_refused(tmp_path):
    write_tar(tmp_path / "0.tar", tar_members(samples(3)))
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match=r"labels.txt names 2 classes, but label 2 occurs"):
        read_webdataset(tmp_path)

"""Files of strangers: archives stay packed, lists of files stay in their folder."""

import io
import json
import tarfile
import zipfile

import pyarrow
import pytest
from planted import PICKLE, refused

from instructgpt.data.files import read_file


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("../ran", "rows.jsonl"):
            archive.writestr(name, '{"prompt": "x"}\n')
    return file.getvalue()


def tarred(mode):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name in ("../ran", "ran", "rows.jsonl"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    return file.getvalue()


ARCHIVES = {
    "x.zip": zipped,
    "x.tar": lambda: tarred("w"),
    "x.tar.gz": lambda: tarred("w:gz"),
    "x.tgz": lambda: tarred("w:gz"),
    "x.jsonl": zipped,
    "x.jsonl.gz": lambda: tarred("w:gz"),
    "x.parquet": zipped,
    "x.pkl": lambda: PICKLE,
    "x.arrow": lambda: PICKLE,
}


@pytest.mark.parametrize("name", list(ARCHIVES))
@pytest.mark.parametrize("inside", ["", "folder/"])
def test_archives_stay_packed(tmp_path, capsys, clean, name, inside):
    path = tmp_path / inside / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(ARCHIVES[name]())
    before = sorted(tmp_path.rglob("*"))
    given = f"--prompts={path.parent if inside else path}"
    told = refused(capsys, "generate", f"--model={clean / 'policy'}", given, "--device=cpu")
    assert str(path.parent) in told
    assert sorted(tmp_path.rglob("*")) == before


def test_a_column_of_objects(tmp_path):
    """A type that an older Arrow would have unpickled is the type that it stores."""
    meta = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": PICKLE.decode("latin1"),
    }
    schema = pyarrow.schema([pyarrow.field("prompt", pyarrow.string(), metadata=meta)])
    table = pyarrow.table({"prompt": ["hello"]}, schema=schema)
    with pyarrow.ipc.new_stream(str(tmp_path / "x.arrow"), schema) as file:
        file.write_table(table)
    assert [item.value for item in read_file(tmp_path / "x.arrow")] == [{"prompt": "hello"}]


def test_a_list_of_files_leads_nowhere_else(tmp_path):
    table = pyarrow.table({"prompt": ["hello"]})
    saved = tmp_path / "saved"
    saved.mkdir()
    for name in ("saved/data.arrow", "secret.arrow"):
        with pyarrow.ipc.new_stream(str(tmp_path / name), table.schema) as file:
            file.write_table(table)
    (saved / "dataset_info.json").write_text("{}")
    files = [{"filename": "../secret.arrow"}, {"filename": "/etc/data.arrow"}]
    (saved / "state.json").write_text(json.dumps({"_data_files": files}))
    with pytest.raises(Exception, match=r"saved/secret\.arrow"):
        list(read_file(saved))

"""RESTORE.txt and the restore lines: how to read a tape with stock programs.

The shell lines below are run by a test against what `capstan tape extract` writes, on tapes of every codec.
"""

from __future__ import annotations

DECODERS = {"zstd": "zstd -dc", "lz4": "lz4 -dc", "gzip": "gzip -dc", "none": "cat"}


def restore_line(kind: str, codec: str | None = None, encryption: str = "none") -> str:
    """The shell line for one tape file, with the drive in `$TAPE`, the tape standing before it, and the file of an
    identity in `$KEY` where it is sealed."""
    read = "dd if=$TAPE bs=1M status=none | tail -c +4097"
    if kind == "label":
        return f"{read} | tar -xf -"
    decode = " | age -d -i $KEY" if encryption == "age" else ""
    decode += "" if codec == "none" else f" | {DECODERS[codec or 'zstd']}"
    if kind == "index":
        return f"{read}{decode} | tar -xf -"
    return f"{read}{decode} | tar -xpf - --delay-directory-restore --xattrs --xattrs-include='*' --acls --numeric-owner"


def restore_text(*, barcode: str, uuid: str, record_bytes: int) -> str:
    """The RESTORE.txt of one label."""
    return _TEXT.format(barcode=barcode, uuid=uuid, record_bytes=record_bytes)


_TEXT = """\
THIS TAPE CAN BE RESTORED WITHOUT CAPSTAN                            (中文说明在下面)

Cartridge {barcode}, {uuid}. Records of {record_bytes} bytes. You need: mt, dd, tail, tar, and zstd (or lz4, gzip);
for sets with `encryption: age` also age (https://age-encryption.org), and a file with an identity that may open them.

Every tape file begins with one record of 4096 bytes of plain text that says what it is.
Tape file 0 is this label. Then come SEGMENTs (your files) and INDEXes (lists of files).

    TAPE=/dev/nst0
    mt -f $TAPE setblk 0                       # records of any size
    mt -f $TAPE rewind

1. What is on the tape. Prints the header of each tape file:

    n=0
    while dd if=$TAPE bs=1M count=1 status=none > header && [ -s header ]; do
        echo "== tape file $n"; grep -aE '^(kind|set|parent|copy|segment|codec|encryption|keys|final|restore):' header
        mt -f $TAPE fsf 1; n=$((n+1))
    done

2. Restore a whole set. Choose its `set:`; take its segments in the order of their numbers, over all its cartridges.
   What lies behind the last `kind: index` of that set on a cartridge was never finished there: leave it out (the next
   cartridge has it again). A `copy:` that is not 0 is a copy: the same number is the same bytes in each. Where one copy
   has a number twice, the earlier was broken off: take the later. Go before tape file N with `mt -f $TAPE asf N`, then, for `codec: zstd`:

    (for N in 1 2 4; do mt -f $TAPE asf $N; dd if=$TAPE bs=1M status=none | tail -c +4097; done) \\
        | zstd -dc | tar -xpf - --delay-directory-restore --xattrs --xattrs-include='*' --acls --numeric-owner

   For `encryption: age`, open each tape file by itself, inside the loop: `… | tail -c +4097 | age -d -i KEYFILE; done`.
   lz4: `lz4 -dc`; gzip: `gzip -dc`; none: `cat`, instead of `zstd -dc`. If the set goes on on another cartridge, keep
   the decoded parts in files and put them together with `cat`, in order of the segments, before tar.

3. One file: the same with `tar -xpf - path/of/the/file` (no leading slash), from the segments that hold it: the INDEX
   has files.parquet (tar_offset of each file) and manifest.json (tar_offset of each segment). A piece that begins
   inside a large file needs the segments before it.

4. A set whose `parent:` is not `-` holds only what changed: restore its parents first, oldest first, into the same
   directory. Then, before its own segments are unpacked there, for each of its INDEXes, in tape file N:

    mt -f $TAPE asf N; dd if=$TAPE bs=1M status=none | tail -c +4097 | zstd -dc | tar -xf - -O deleted > /tmp/deleted
    xargs -0 rm -rf -- < /tmp/deleted

   (For `encryption: age`: `… | tail -c +4097 | age -d -i KEYFILE | zstd -dc | …`.)

No drive at hand, but the tape as plain files NNNN.segment (as `capstan tape extract` writes them)?  The same, with
`tail -c +4097 NNNN.segment` instead of mt and dd.
Paths of more than 4096 bytes are restored by Capstan only: GNU tar cannot make them.


本磁带无需 CAPSTAN 即可恢复

磁带 {barcode}，{uuid}。记录大小 {record_bytes} 字节。需要：mt、dd、tail、tar，以及 zstd（或 lz4、gzip）；
`encryption: age` 的备份集还需要 age（https://age-encryption.org）和一个可解密的身份（identity）密钥文件。

每个磁带文件都以一条 4096 字节的纯文本记录开头，说明其内容。第 0 个磁带文件是本标签，其后是 SEGMENT（您的文件）和
INDEX（文件清单）。

    TAPE=/dev/nst0
    mt -f $TAPE setblk 0
    mt -f $TAPE rewind

1. 查看磁带内容：执行上面英文第 1 步的循环，它会显示每个磁带文件的头部。

2. 恢复整个备份集：选定 `set:`，按 `segment:` 编号顺序，跨所有磁带取出它的各个 SEGMENT。某盘磁带上该备份集最后一个
   `kind: index` 之后的内容没有写完，不要使用（下一盘磁带上会重新写入）。`copy:` 不为 0 的是副本：同一编号在各副本中内容
   相同，取任一即可；同一副本中编号重复时，较早的没有写完，取较晚的。然后执行上面第 2 步的命令。
   `encryption: age` 时，在循环内对每个磁带文件单独解密：`… | tail -c +4097 | age -d -i 密钥文件; done`。
   lz4 用 `lz4 -dc`，gzip 用 `gzip -dc`，none 用 `cat` 代替 `zstd -dc`。

3. 恢复单个文件：在同一命令末尾加上文件路径（不带开头的斜杠）。

4. `parent:` 不是 `-` 的备份集只含变化部分：先按时间顺序把各级上级备份集恢复到同一目录；解开本集的 SEGMENT 之前，对本集
   的每个 INDEX 执行上面第 4 步的命令（删除已不存在的文件）。

没有磁带机、只有 `capstan tape extract` 写出的普通文件时，用 `tail -c +4097 NNNN.segment` 代替 mt 和 dd。
"""

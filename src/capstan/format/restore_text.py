"""RESTORE.txt and the restore lines: how to read a tape with stock programs.

The shell lines below are run by a test against what `capstan tape extract` writes, on tapes of every codec.
"""

from __future__ import annotations

from capstan.format.codecs import find_codec, index_codec
from capstan.format.containers import STREAM, find_container


def restore_line(
    kind: str, codec: str = "none", encryption: str = "none", *, container: str = STREAM, segment: int = 0
) -> str:
    """The shell line for one tape file, with the drive in `$TAPE`, the tape standing before it, and the file of an
    identity in `$KEY` where it is sealed. `segment`: the number of the one that is written next."""
    read = "dd if=$TAPE bs=1M status=none | tail -c +4097"
    if kind == "label":
        return f"{read} | tar -xf -"
    read += " | age -d -i $KEY" if encryption == "age" else ""
    if kind == "segment" and container != STREAM:
        archive = find_container(container)
        file = f"{segment:04}.{archive.suffix}"
        return f"{read} > {file} && {archive.extract.replace('FILE', file)}"
    program = find_codec(index_codec(codec)[0] if kind == "index" else codec).program
    decode = "" if program == "cat" else f" | {program}"
    if kind == "index":
        return f"{read}{decode} | tar -xf -"
    return f"{read}{decode} | tar -xpf - --delay-directory-restore --xattrs --xattrs-include='*' --acls --numeric-owner"


def restore_text(*, barcode: str, uuid: str, record_bytes: int) -> str:
    """The RESTORE.txt of one label."""
    return _TEXT.format(barcode=barcode, uuid=uuid, record_bytes=record_bytes)


_TEXT = """\
THIS TAPE CAN BE RESTORED WITHOUT CAPSTAN                            (中文说明在下面)

Cartridge {barcode}, {uuid}. Records of {record_bytes} bytes. You need: mt, dd, tail, tar, and zstd (or lz4, gzip, 7z);
for sets with `encryption: age` also age (https://age-encryption.org), and a file with an identity that may open them;
for sets with `encryption: drive` a drive that is told their key first (AES-256, `stenc -f $TAPE -e mixed -k KEYFILE`).

Every tape file begins with one record of 4096 bytes of plain text that says what it is.
Tape file 0 is this label. Then come SEGMENTs (your files) and INDEXes (lists of files).

    TAPE=/dev/nst0
    mt -f $TAPE setblk 0                       # records of any size
    mt -f $TAPE rewind

1. What is on the tape. Prints the header of each tape file:

    n=0
    while dd if=$TAPE bs=1M count=1 status=none > header && [ -s header ]; do
        echo "== $n"; grep -aE '^(kind|set|parent|copy|segment|container|codec|encryption|keys|final|restore):' header
        mt -f $TAPE fsf 1; n=$((n+1))
    done

2. Restore a whole set. Choose its `set:`; take its segments in the order of their numbers, over all its cartridges.
   What lies behind the last `kind: index` of that set on a cartridge was never finished there: leave it out (the next
   cartridge has it again). A `copy:` that is not 0 is a copy: the same number is the same bytes in each. Where one copy
   has a number twice, the earlier was broken off: take the later. Go before tape file N with `mt -f $TAPE asf N`,
   then, for `codec: zstd`:

    (for N in 1 2 4; do mt -f $TAPE asf $N; dd if=$TAPE bs=1M status=none | tail -c +4097; done) \\
        | zstd -dc | tar -xpf - --delay-directory-restore --xattrs --xattrs-include='*' --acls --numeric-owner

   For `encryption: age`, open each tape file by itself, inside the loop: `… | tail -c +4097 | age -d -i KEYFILE; done`.
   lz4: `lz4 -dc`; gzip: `gzip -dc`; none: `cat`, instead of `zstd -dc`. If the set goes on on another cartridge, keep
   the decoded parts in files and put them together with `cat`, in order of the segments, before tar.

   `container: 7z`: each segment is one archive. `7z x` gives the contents of the files, under names that every system
   can hold (7zz on some systems); of what began in one segment and goes on in others, in order of their numbers:

    for N in 1 2 4; do mt -f $TAPE asf $N; dd if=$TAPE bs=1M status=none | tail -c +4097 > $N.7z; 7z x -y $N.7z; done
    cat DIRECTORY/NAME.part* > NAME

   Owners, links, attributes and holes are in the tar headers beside them, in .capstan. This puts the tar stream
   together for tar, as above, where each segment was unpacked in a directory of its own (`7z x -oN N.7z`):

    python3 -c 'if 1:
     import glob,sys
     for d in sys.argv[1:]:
      t=glob.glob(d+"/.capstan/*.table")[0];h=open(t[:-5]+"headers","rb");a=0;w=sys.stdout.buffer.write
      for o,n,f in [l.split(" ",2) for l in open(t,encoding="utf-8",newline="\\n").read().split("\\n")[1:-1]]:
       w(h.read(int(o)-a));w(open(d+"/"+f,"rb").read());a=int(o)+int(n)
      w(h.read())' 1 2 4

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

磁带 {barcode}，{uuid}。记录大小 {record_bytes} 字节。需要：mt、dd、tail、tar，以及 zstd（或 lz4、gzip、7z）；
`encryption: age` 的备份集还需要 age（https://age-encryption.org）和一个可解密的身份（identity）密钥文件；
`encryption: drive` 的备份集需先把密钥（AES-256）设入磁带机（`stenc -f $TAPE -e mixed -k 密钥文件`）。

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
   `container: 7z`：每个 SEGMENT 是一个完整的 7z 文件，用 `7z x` 解开；跨段的大文件是 NAME.part001、NAME.part002……，
   用 `cat` 按编号拼接；权限、链接、扩展属性等在 .capstan 目录里，上面英文部分的 python3 命令可还原成 tar 流。

3. 恢复单个文件：在同一命令末尾加上文件路径（不带开头的斜杠）。

4. `parent:` 不是 `-` 的备份集只含变化部分：先按时间顺序把各级上级备份集恢复到同一目录；解开本集的 SEGMENT 之前，对本集
   的每个 INDEX 执行上面第 4 步的命令（删除已不存在的文件）。

没有磁带机、只有 `capstan tape extract` 写出的普通文件时，用 `tail -c +4097 NNNN.segment` 代替 mt 和 dd。
"""

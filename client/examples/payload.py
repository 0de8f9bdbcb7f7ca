#!/usr/bin/env python3
"""Waits for a message and maps its payload, with nothing but the standard library.

    payload.py CHANNEL-DIRECTORY [COUNT]        such as: payload.py /ipc/video

Prints a line a message: sequence, sender, size, where the body was, and its CRC-32.
"""
import mmap
import os
import struct
import sys
import zlib

# docs/frames.md: magic version type header_length flags priority reserved crc32c, then 8-byte fields.
HEADER = struct.Struct("<IBBHHBBI QQQQQ IIII QQQ")
EXTENSION = struct.Struct("<HH")
# docs/frames.md: the value of the extension `payload`: kind, chunk, size, pool, generation.
PAYLOAD = struct.Struct("<B3xIQQI4x")
KIND_PAYLOAD = 6


def extensions(data):
    """The (type, value) pairs between the fixed header and the body."""
    at = 0
    while at < len(data):
        kind, length = EXTENSION.unpack_from(data, at)
        yield kind, data[at + 4:at + 4 + length]
        at += (4 + length + 7) & ~7


def receive(channel):
    """Takes one message. The open file keeps it, and so its payload, until it is closed."""
    fd = os.open(f"{channel}/framed/next", os.O_RDONLY)
    try:
        data = os.read(fd, 1 << 20)
        if not data:
            raise SystemExit(f"{channel} was removed")
        fields = HEADER.unpack_from(data)
        magic, _, _, length = fields[:4]
        sequence, pid, payload_id, body_length = fields[8], fields[13], fields[18], fields[19]
        if magic != 0x46435049:
            raise SystemExit("not a frame")
        if payload_id == 0:
            body = data[length:length + body_length]
            while len(body) < body_length:
                body += os.read(fd, 1 << 20)
            return sequence, pid, "the message", body
        values = dict(extensions(data[HEADER.size:length]))
        size = PAYLOAD.unpack(values[KIND_PAYLOAD])[2]
        # For reading: nobody may open a payload for writing, and a sealed one cannot change any more.
        payload = os.open(f"{channel}/payload/{payload_id}", os.O_RDONLY)
        try:
            view = mmap.mmap(payload, size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(payload)
        return sequence, pid, f"payload/{payload_id}", view
    finally:
        os.close(fd)


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1):
        sequence, pid, where, body = receive(sys.argv[1])
        print(f"{sequence}: {len(body)} bytes from process {pid} in {where}, "
              f"crc32 {zlib.crc32(body):08x}", flush=True)


if __name__ == "__main__":
    main()

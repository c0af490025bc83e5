import picows

from kalshi_fast._path import DeltaPath
from kalshi_fast.receiver import Receiver

class FrameListener(picows.WSListener):
    every_read: bool
    def __init__(self, path: DeltaPath, rest: Receiver, *, every_read: bool = False) -> None: ...

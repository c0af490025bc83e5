import picows

from kalshi_fast._path import DeltaPath
from kalshi_fast.receiver import Receiver

class FrameListener(picows.WSListener):
    def __init__(self, path: DeltaPath, rest: Receiver) -> None: ...

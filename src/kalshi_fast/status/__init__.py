"""What an operator sees of a running recording: metrics, health, a page. Served by a process of its own.

The capture process and the writer process each say now and then how far they are (``figures``): one
datagram, never waited for. The status process puts that together (``state``) and answers whoever asks
(``http``), so that a scrape costs the recording nothing, and the death of the writer can still be told.
``publish`` is the capture process's side, ``seen`` the writer's, ``process`` the third one.
"""

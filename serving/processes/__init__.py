"""One service of several processes, and what one of them knows of that.

sockets.py     a port to listen at: one socket for each process, taken before any is started
parent.py      starts the processes, anew where one dies, and ends them; answers no request itself
seat.py        what each is handed: its number, its sockets, and a leash on which its parent holds it
siblings.py    asking the others for their metrics, so that any of them can show everybody's
"""

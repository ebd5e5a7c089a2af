from pathlib import Path
def test_x(toys):
    import time
    from swahr.commands.export import export
    for k in ({}, {"flip":True},{"half":True}):
        t=time.time(); print(export(toys.model(), toys.folder/"x.onnx", **k), time.time()-t)

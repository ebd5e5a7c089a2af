# make demo   install, make synthetic people, train, validate, draw (no GPU needed, 10 to 14 minutes on two cores after installation)
# make test   install what the tests need and run them all
# make faults the longer fault-injection scripts (kill, full disk, lost node, memory) and the slow tests, 11 to 26 minutes
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

DEMO_CFG  := experiments/synthetic/demo.yaml
DEMO_DATA := data/synthetic
DEMO_OUT  := output/coco_kpt/pose_higher_hrnet/demo

.PHONY: demo test lint faults clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "This project needs Python 3.10 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python requirements.txt pyproject.toml
	$(BIN)/python -m pip install --no-compile -e .
	@touch $@

$(VENV)/.installed-test: $(BIN)/python requirements.txt pyproject.toml
	$(BIN)/python -m pip install --no-compile -e '.[test]'
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	$(BIN)/python tools/make_synthetic.py --preset calm --size 256 --out $(DEMO_DATA) --train 5000 --val 400
	$(BIN)/python -m swahr predict '$(DEMO_DATA)/images/val2017/0000010000*.jpg' --weights demo --save_dir $(DEMO_OUT)/images_of_shipped_network --threshold 0.3
	@echo "Images with the people that the network in models/demo finds: $(DEMO_OUT)/images_of_shipped_network"
	@echo "Now another network is trained."
	$(BIN)/python tools/dist_train.py --cfg $(DEMO_CFG)
	$(BIN)/python tools/dist_valid.py --cfg $(DEMO_CFG)
	$(BIN)/python tools/dist_inference.py --cfg $(DEMO_CFG) --img_dir $(DEMO_DATA)/images/val2017 --save_dir $(DEMO_OUT)/images --threshold 0.3
	@echo
	@cat $(DEMO_OUT)/results/*.md
	@echo
	@echo "AP table          $(DEMO_OUT)/results"
	@echo "images            $(DEMO_OUT)/images"
	@echo "checkpoint        $(DEMO_OUT)/model_best.pth.tar"
	@echo "TensorBoard       $(BIN)/python -m tensorboard.main --logdir log   (pip install tensorboard)"

lint: $(VENV)/.installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# One process per core, each with one thread: threads of several processes would wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

faults: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/faults
	$(BIN)/python -m pytest -m slow

# Removes what the targets above built, but no checkpoints, logs or data.
clean:
	rm -rf $(VENV) build lib/*.egg-info .pytest_cache .mypy_cache .ruff_cache

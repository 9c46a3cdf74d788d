"""Pictures over HTTP: the same classes as in an evaluation, and nothing worse than a problem."""

import io
import json
import struct
import zlib

import jsonschema
import numpy as np
import pytest
import requests
import torch
from PIL import Image
from serving.conftest import picture
from serving.test_malformed_requests import check

from citeflow import files
from citeflow.serving.images import routes
from citeflow.serving.images.index import ImageIndex, write_index
from citeflow.tasks.images import trained_model
from citeflow.tasks.images.prepared import PreparedImages
from citeflow.tasks.images.training import predict

INFER = "/v2/models/citeflow/infer"


@pytest.fixture(scope="session")
def images(digits):
    return PreparedImages.open(digits.images)


@pytest.fixture(scope="session")
def expected(classified, images):
    """Logits [3, K] of the first test images."""
    model = trained_model.load(classified.model).model
    return predict(model, images, images.rows["test"][:3])


def tensor(values, datatype="UINT8", shape=None, name="image", **parameters):
    values = np.asarray(values)
    given = {
        "name": name,
        "shape": shape or list(values.shape),
        "datatype": datatype,
        "data": values.tolist(),
    }
    return {"inputs": [given], "parameters": parameters}


def test_a_picture_gets_the_classes_of_the_evaluation(image_server, images, expected):
    for row, logits in zip(images.rows["test"][:3], expected, strict=True):
        answer = image_server.classify(picture(images.image_NHWC[row][..., 0]), "?k=10").json()
        probability, order = logits.softmax(0).sort(descending=True)
        found = answer["predictions"]
        assert [each["label"] for each in found] == [images.facts.classes[i] for i in order]
        assert [each["probability"] for each in found] == pytest.approx(
            probability.tolist(), rel=1e-4
        )
        assert [each["rank"] for each in found] == list(range(1, 11))
        assert (answer["width"], answer["height"], answer["remarks"]) == (8, 8, [])


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("layout", ["nested", "flat", "without channels"])
def test_a_tensor_gets_the_classes_of_the_evaluation(
    image_server, images, expected, datatype, layout
):
    pixels = images.image_NHWC[images.rows["test"][:3]]
    values = pixels if datatype == "UINT8" else pixels / 255
    shape = [3, 8, 8] if layout == "without channels" else [3, 8, 8, 1]
    given = values if layout == "nested" else values.reshape(-1)
    answer = image_server.post(INFER, {"id": "7", **tensor(given, datatype, shape, k=2)}).json()
    outputs = {each["name"]: each for each in answer["outputs"]}
    assert (answer["id"], outputs["label"]["datatype"]) == ("7", "BYTES")
    assert [outputs[name]["shape"] for name in ("label", "probability", "logit")] == [[3, 2]] * 3
    logit, order = expected.topk(2)
    assert outputs["logit"]["data"] == pytest.approx(logit.flatten().tolist(), rel=1e-4, abs=1e-4)
    classes = [images.facts.classes[i] for i in order.flatten()]
    assert outputs["label"]["data"] == classes


def test_the_model_describes_its_tensors(image_server, classified):
    assert image_server.get("/v2/models/citeflow/ready").json()["ready"] is True
    model = image_server.get("/v2/models/citeflow").json()
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    about = image_server.get("/v1/about").json()
    details = trained_model.load(classified.model).details
    assert (about["task"], about["dataset"]) == ("images", "digits")
    assert about["classes"] == list(details.classes)
    assert about["valid_accuracy"] == details.valid_accuracy
    assert about["version"].startswith(model["versions"][0])


def test_a_picture_is_resized_turned_and_said_so(image_server, images):
    row = images.rows["test"][0]
    digit = Image.fromarray(images.image_NHWC[row][..., 0])
    large = digit.resize((80, 80), Image.Resampling.NEAREST).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    files_of = {}
    for name, image, options in (
        ("as it is", large, {"format": "PNG"}),
        ("turned", large.rotate(90), {"format": "JPEG", "quality": 95, "exif": turned}),
        ("wide", large.resize((160, 80)), {"format": "PNG"}),
    ):
        files_of[name] = io.BytesIO()
        image.save(files_of[name], **options)
    answers = {
        name: image_server.classify(file.getvalue()).json() for name, file in files_of.items()
    }
    assert len({each["predictions"][0]["label"] for each in answers.values()}) == 1
    assert answers["as it is"]["remarks"] == ["resized from 80 x 80 to 8 x 8 pixels"]
    assert "which stretched it" in answers["wide"]["remarks"][0]
    metrics = image_server.get("/metrics").text
    assert 'citeflow_serving_answers_total{method="picture"}' in metrics
    assert 'citeflow_serving_size{of="classes"} 10.0' in metrics


def bomb(width, height):
    """Return a PNG of few bytes whose header claims a size."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


GOOD = picture(np.eye(8) * 255)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
LARGE, JPEG = picture(NOISE), picture(NOISE, "JPEG")
PICTURES = [
    (b"", "no picture in the request"),
    (b"{}", "not a PNG or JPEG image"),
    (b"\x89PNG\r\n\x1a\n", "not a PNG or JPEG image"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG or JPEG image"),
    (picture(np.eye(8), "GIF"), "not a PNG or JPEG image"),
    (picture(np.eye(8), "TIFF"), "not a PNG or JPEG image"),
    (bomb(4_097, 4_096), "image is too large"),
    (bomb(60_000, 60_000), "image is too large"),
    (bomb(0, 8), ""),
    (GOOD[: len(GOOD) // 2], ""),
    (LARGE[: len(LARGE) // 2], "image is damaged"),
    (JPEG[: len(JPEG) // 2], "image is damaged"),
]


@pytest.mark.parametrize(("body", "detail"), PICTURES, ids=range(len(PICTURES)))
def test_a_file_that_is_no_good_picture_is_one_problem(image_server, body, detail):
    response = image_server.classify(body)
    check(response, 422)
    assert response.json()["detail"].startswith(detail)


@pytest.mark.parametrize("query", ["?k=0", "?k=1001", "?k=x"])
def test_an_impossible_number_of_classes_is_one_problem(image_server, query):
    check(image_server.classify(GOOD, query), 422)


def test_a_large_file_is_refused_before_it_is_decoded(image_server):
    limit = routes.SERVICE.max_body_bytes
    check(image_server.classify(bytes(limit + 1)), 413)
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3))
    large = picture(noise)  # more than servers of papers take
    assert len(large) > 1 << 20
    assert image_server.classify(large).json()["width"] == 700


ZEROS = np.zeros((1, 8, 8, 1), int)
NESTED = [[[0.5, float("nan")] * 4] * 8]
TENSORS = [
    {"inputs": []},
    {"inputs": tensor(ZEROS)["inputs"] * 2},
    tensor(ZEROS, name="paper"),
    tensor(ZEROS, datatype="BYTES"),
    tensor(ZEROS, datatype="INT64"),
    tensor(ZEROS, shape=[1, 8, 9, 1]),
    tensor(ZEROS, shape=[1, 1, 8, 8]),
    tensor(ZEROS, shape=[2, 8, 8, 1]),
    tensor(ZEROS, shape=[0, 8, 8, 1]),
    tensor(ZEROS, shape=[10**12, 8, 8, 1]),
    tensor(ZEROS, shape=[-1, 8, 8, 1]),
    tensor(ZEROS, shape=[64]),
    tensor(np.zeros((257, 8, 8, 1), int)),
    tensor(ZEROS + 256),
    tensor(ZEROS - 1),
    tensor(ZEROS + 0.5),
    tensor(ZEROS + 2, datatype="FP32"),
    tensor(ZEROS - 0.1, datatype="FP32"),
    tensor(NESTED, datatype="FP32"),
    tensor([["0"] * 64], shape=[1, 8, 8]),
    tensor(np.array([None] * 64, object), shape=[1, 8, 8]),
    tensor(np.array([10**30] * 64, object), shape=[1, 8, 8]),
    tensor([True] * 64, shape=[1, 8, 8]),
    {"inputs": [{**tensor(ZEROS)["inputs"][0], "data": [[0] * 60, [0] * 4]}]},
    {"inputs": [{**tensor(ZEROS)["inputs"][0], "data": 7}]},
    tensor(ZEROS, k=0),
    tensor(ZEROS, k=[]),
    tensor(ZEROS, since="2000"),
]


@pytest.mark.parametrize("body", TENSORS, ids=range(len(TENSORS)))
def test_a_malformed_tensor_is_one_problem(image_server, body):
    content = json.dumps(body)  # with NaN
    headers = {"Content-Type": "application/json"}
    check(requests.post(image_server.url + INFER, content, headers=headers, timeout=60), 422)


def test_another_model_is_not_found(image_server):
    check(image_server.post("/v2/models/other/infer", tensor(ZEROS)), 404)


def test_answers_fit_the_openapi_page(image_server):
    page = image_server.get("/openapi.json").json()
    assert page["info"]["summary"] == "The classes that pictures most likely show."
    for method, route, response in (
        ("get", "/v1/about", image_server.get("/v1/about")),
        ("post", "/v1/images:classify", image_server.classify(GOOD)),
        ("post", "/v2/models/{model}/infer", image_server.post(INFER, tensor(ZEROS))),
    ):
        schema = page["paths"][route][method]["responses"]["200"]["content"]["application/json"]
        jsonschema.validate(response.json(), {**schema["schema"], "components": page["components"]})


def test_an_index_needs_neither_run_nor_images_and_is_made_once(classified, image_folder):
    assert {each.suffix for each in image_folder.iterdir()} == {".json", ".safetensors"}
    before = (image_folder / files.MANIFEST).stat().st_ino
    assert write_index(classified.model, image_folder) == image_folder
    assert (image_folder / files.MANIFEST).stat().st_ino == before
    opened = ImageIndex.open(image_folder)
    assert opened.logits(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    facts = opened.manifest.facts
    assert (facts["task"], facts["num_classes"]) == ("images", 10)

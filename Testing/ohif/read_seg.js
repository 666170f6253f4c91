// What OHIF sees of DICOM SEGs: its adapter (Cornerstone's) reads them, as the viewer lets it. By lines of JSON: of stdin
// {"seg": FILE, "images": [[FILE, FRAME], ...]}, frames from 1, of stdout {"segments": [...], "labels": BASE64}, a byte a
// voxel in the order of the images, or {"error": TEXT}.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Cornerstone3DSEG } from "@cornerstonejs/adapters/cornerstone3D";
import { metaData } from "@cornerstonejs/core";
import dcmjs from "dcmjs";

const { DicomMessage, DicomMetaDictionary } = dcmjs.data;
const bytesOf = (file) => new Uint8Array(readFileSync(file)).buffer;
const first = (sequence) => (Array.isArray(sequence) ? sequence[0] : sequence);

// As OHIF's: of an enhanced CT a frame looks like a single image.
function instanceOf(dataset, frame) {
  if (!dataset.PerFrameFunctionalGroupsSequence) return dataset;
  const groups = [dataset.SharedFunctionalGroupsSequence, [dataset.PerFrameFunctionalGroupsSequence].flat()[frame - 1]];
  const items = groups.map(first).flatMap((group) => Object.values(group).map(first));
  return Object.assign({}, dataset, ...items.filter((item) => item && typeof item === "object"));
}

function modulesOf(instance) {
  const orientation = instance.ImageOrientationPatient.map(Number);
  const [rowPixelSpacing, columnPixelSpacing] = instance.PixelSpacing.map(Number);
  return {
    instance,
    generalImageModule: { sopInstanceUID: instance.SOPInstanceUID },
    generalSeriesModule: { seriesInstanceUID: instance.SeriesInstanceUID, modality: instance.Modality },
    imagePixelModule: { rows: instance.Rows, columns: instance.Columns },
    imagePlaneModule: {
      frameOfReferenceUID: instance.FrameOfReferenceUID,
      rows: instance.Rows,
      columns: instance.Columns,
      imageOrientationPatient: orientation,
      rowCosines: orientation.slice(0, 3),
      columnCosines: orientation.slice(3),
      imagePositionPatient: instance.ImagePositionPatient.map(Number),
      rowPixelSpacing,
      columnPixelSpacing,
    },
  };
}

let known = new Map();
const provider = (type, id) => known.get(id)?.[type];
metaData.addProvider(provider, 1);

async function read({ seg, images }) {
  const datasets = new Map();
  known = new Map();
  for (const [file, frame] of images) {
    if (!datasets.has(file)) {
      datasets.set(file, DicomMetaDictionary.naturalizeDataset(DicomMessage.readFile(bytesOf(file)).dict));
    }
    known.set(`wadouri:${file}?frame=${frame}`, modulesOf(instanceOf(datasets.get(file), frame)));
  }
  const options = { metadataProvider: { get: provider, addInstance: () => {} }, tolerance: 1e-3 };
  const read = await Cornerstone3DSEG.Segmentation.createFromDICOMSegBuffer([...known.keys()], bytesOf(seg), options);
  const [layer, ...others] = read.labelMapImages;
  if (others.length) throw new Error(`${others.length} segments overlap others`);
  return {
    segments: read.segMetadata.data.slice(1),
    labels: Buffer.concat(layer.map((image) => image.voxelManager.getScalarData())).toString("base64"),
  };
}

// The libraries print what they think of a file, and stdout is for answers.
console.log = console.warn = console.info = console.debug = console.error;
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await read(JSON.parse(line)).catch((error) => ({ error: String(error?.stack ?? error) }));
  process.stdout.write(JSON.stringify(answer) + "\n");
}

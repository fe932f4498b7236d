"""What to write in the methods section of a paper, with its references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bids_harmonize.bids.dataset_files import CODE_URL
from bids_harmonize.model.card import ModelCard
from bids_harmonize.report.components.numbers import join_values, pluralize
from bids_harmonize.results.provenance import Provenance

REFERENCES = {
    "Brett et al.": "Brett M, Markiewicz CJ, Hanke M, et al. nipy/nibabel. Zenodo. doi:10.5281/zenodo.591597",
    "Chen et al. 2007": "Chen J, Paris S, Durand F. Real-time edge-aware image processing with the bilateral "
    "grid. ACM Transactions on Graphics 26(3):103, 2007. doi:10.1145/1276377.1276506",
    "Gharbi et al. 2017": "Gharbi M, Chen J, Barron JT, Hasinoff SW, Durand F. Deep bilateral learning for "
    "real-time image enhancement. ACM Transactions on Graphics 36(4):118, 2017. "
    "doi:10.1145/3072959.3073592",
    "Gorgolewski et al. 2016": "Gorgolewski KJ, Auer T, Calhoun VD, et al. The brain imaging data structure, "
    "a format for organizing and describing outputs of neuroimaging experiments. Scientific Data 3:160044, "
    "2016. doi:10.1038/sdata.2016.44",
    "Gorgolewski et al. 2017": "Gorgolewski KJ, Alfaro-Almagro F, Auer T, et al. BIDS apps: Improving ease "
    "of use, accessibility, and reproducibility of neuroimaging data analysis methods. PLOS Computational "
    "Biology 13(3):e1005209, 2017. doi:10.1371/journal.pcbi.1005209",
    "Paszke et al. 2019": "Paszke A, Gross S, Massa F, et al. PyTorch: An imperative style, high-performance "
    "deep learning library. Advances in Neural Information Processing Systems 32, 2019. arXiv:1912.01703",
}


def methods(provenances: Sequence[Provenance], cards: Mapping[str, ModelCard]) -> str:
    """A paragraph on how scans were harmonized, then the references, one per line.

    Parameters
    ----------
    provenances
        How scans were harmonized; of one at least.
    cards
        Model cards by the SHA-256 of the weights; a model without one is named only.
    """
    # One sentence per model, whatever number of scans it served.
    models = {provenance.model_sha256: provenance for provenance in provenances}
    versions = sorted({str(provenance.version) for provenance in provenances})
    torch = sorted(
        {
            provenance.torch_version.split("+")[0]
            for provenance in provenances
            if provenance.torch_version is not None
        }
    )
    sentences = [
        f"Image intensities were harmonized with bids-harmonize {' and '.join(versions)} ({CODE_URL}), a "
        "BIDS App (Gorgolewski et al. 2016; Gorgolewski et al. 2017).",
        "A convolutional network takes the local histograms of an image, in cells of about 8 mm, and "
        "predicts for every cell a rising tone curve; every voxel is mapped by the curves around it, "
        "interpolated between the cells, as in a bilateral grid (Chen et al. 2007; Gharbi et al. 2017). "
        "Images were neither registered, skull-stripped nor resampled.",
        *(_model(provenance, cards.get(str(sha256))) for sha256, provenance in models.items()),
        f"Computations used PyTorch {' and '.join(torch)} (Paszke et al. 2019) and NiBabel (Brett et al.).",
    ]
    return "\n".join([" ".join(sentences), "", "References", *REFERENCES.values()])


def _model(provenance: Provenance, card: ModelCard | None) -> str:
    sha256 = str(provenance.model_sha256)
    model = f"The model {provenance.model} (SHA-256 of its weights {sha256[:12]})"
    data = card.data if card else None
    if card is None or data is None or data.reference_group is None:
        return f"{model} was used."
    scans = pluralize(len(data.reference_group), "scan")
    source = f"{scans} of the dataset “{'without a name' if data.name is None else data.name}”"
    links = join_values(data.dataset_doi or data.references_and_links)
    scale = provenance.output_scale.description
    unit = "" if scale is None else f"; the unit of intensities is {scale}"
    return (
        f"{model} for {card.modality} images brings them to the intensities of a reference group of "
        f"{source}{f' ({links})' if links else ''}{unit}."
    )

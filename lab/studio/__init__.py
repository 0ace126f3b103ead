"""Writes a studio: images, captions, latents, queries and votes, as anyone's image folder would be.

    kallos studio --out runs/studio --seed 0 --num-images 4000

Input: a seed. Output folder:

    images/<split>/<index>.jpg   split: train | gallery | heldout; no image is in two
    metadata.parquet             file_name, caption, detailed_caption, tags, split: what `kallos ingest` reads
    latents.parquet              image_id, file_name, split, aesthetics and every latent
    truth.parquet                query, image_id, accurate, aesthetics: held-out queries x gallery images
    labels.parquet               image_id, label: the subject of each image
    queries_train.parquet        query; no query is in both files
    queries_heldout.parquet      query; each has at least five accurate images in the gallery
    hpir.parquet                 votes of simulated people on held-out images (form: `raters.hpir_row`)
"""

SELECT id, id AS key, id AS value
FROM documents
WHERE state = 'done' AND json_extract(body, '$.cores') = 1

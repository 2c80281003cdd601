SELECT id, id AS key, id AS value
FROM documents
WHERE state = 'todo' AND json_extract(body, '$.cores') = 4

SELECT id, id AS key, id AS value
FROM documents
WHERE state = 'locked' AND json_extract(body, '$.cores') = 1

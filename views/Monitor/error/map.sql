SELECT id, id AS key, id AS value
FROM documents
WHERE state = 'error'

-- name: account
select 1 as there from service_account where id = %(after)s and project_id = %(project_id)s

-- name: audit
select 1 as there from audit_log where id = %(after)s and organization_id = %(organization_id)s

-- name: batch
select 1 as there from batch where id = %(after)s and project_id = %(project_id)s

-- name: checkpoint
select 1 as there from checkpoint where id = %(after)s and job_id = %(job_id)s

-- name: completion
select 1 as there from stored_completion where id = %(after)s and project_id = %(project_id)s

-- name: deletion
select 1 as there from deletion join project on project.id = deletion.project_id
where subject = %(after)s and organization_id = %(organization_id)s
limit 1

-- name: eval
select 1 as there from eval where id = %(after)s and project_id = %(project_id)s

-- name: eval_item
select 1 as there from eval_item where id = %(after)s and run_id = %(run_id)s

-- name: eval_run
select 1 as there from eval_run where id = %(after)s and project_id = %(project_id)s

-- name: file
select 1 as there from file where id = %(after)s and project_id = %(project_id)s

-- name: job
select 1 as there from job where id = %(after)s and project_id = %(project_id)s

-- name: job_event
select 1 as there from job_event where id = %(after)s and job_id = %(job_id)s

-- name: key
select 1 as there from api_key where id = %(after)s and project_id = %(project_id)s

-- name: member
select 1 as there from member where id = %(after)s and organization_id = %(organization_id)s

-- name: permission
select 1 as there from checkpoint_permission where id = %(after)s and project_id = %(project_id)s

-- name: project
select 1 as there from project where id = %(after)s and organization_id = %(organization_id)s

-- name: project_member
select 1 as there from project_member where member_id = %(after)s and project_id = %(project_id)s

-- name: webhook
select 1 as there from webhook_endpoint where id = %(after)s and project_id = %(project_id)s
